"""The commands of Redis by name: their lists, for who must know which words are no secrets."""

KEYED: str
PLAIN: str
SECRETS: str
SUBSCRIBES: str
ANY_TIME: str
REPLICATES: str
CONTAINERS: dict[str, str]
SECRET_CONTAINERS: dict[str, str]
