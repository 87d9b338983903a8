class L7Protocol:
    id: int
    pairing: int
    name: str
    ports: tuple[int, ...]
