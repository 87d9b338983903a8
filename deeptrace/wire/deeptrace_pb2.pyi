from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLAIN: _ClassVar[Encoding]
    SHUFFLE: _ClassVar[Encoding]
    DELTA_SHUFFLE: _ClassVar[Encoding]
PLAIN: Encoding
SHUFFLE: Encoding
DELTA_SHUFFLE: Encoding

class AgentMessage(_message.Message):
    __slots__ = ("hello", "batch", "heartbeat")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    batch: Batch
    heartbeat: Heartbeat
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("welcome", "ack")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    ack: Ack
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ("major", "minor")
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    major: int
    minor: int
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("agent_id", "epoch_ns", "version", "host", "boot_id", "pid", "tool_version")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_NS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    TOOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    epoch_ns: int
    version: Version
    host: str
    boot_id: str
    pid: int
    tool_version: str
    def __init__(self, agent_id: _Optional[str] = ..., epoch_ns: _Optional[int] = ..., version: _Optional[_Union[Version, _Mapping]] = ..., host: _Optional[str] = ..., boot_id: _Optional[str] = ..., pid: _Optional[int] = ..., tool_version: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("version", "pid", "boot_id", "last_sequence", "refused")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    version: Version
    pid: int
    boot_id: str
    last_sequence: int
    refused: str
    def __init__(self, version: _Optional[_Union[Version, _Mapping]] = ..., pid: _Optional[int] = ..., boot_id: _Optional[str] = ..., last_sequence: _Optional[int] = ..., refused: _Optional[str] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("name", "type", "count", "encoding", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    count: int
    encoding: Encoding
    data: bytes
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ..., count: _Optional[int] = ..., encoding: _Optional[_Union[Encoding, str]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Table(_message.Message):
    __slots__ = ("rows", "columns")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    def __init__(self, rows: _Optional[int] = ..., columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ...) -> None: ...

class Process(_message.Message):
    __slots__ = ("pid", "start_ns", "comm", "service", "container_id")
    PID_FIELD_NUMBER: _ClassVar[int]
    START_NS_FIELD_NUMBER: _ClassVar[int]
    COMM_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    pid: int
    start_ns: int
    comm: str
    service: str
    container_id: str
    def __init__(self, pid: _Optional[int] = ..., start_ns: _Optional[int] = ..., comm: _Optional[str] = ..., service: _Optional[str] = ..., container_id: _Optional[str] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("sequence", "host", "boot_id", "spans", "attributes", "strings", "string_bytes", "processes", "layout_hash")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    STRING_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_HASH_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    host: str
    boot_id: str
    spans: Table
    attributes: Table
    strings: Table
    string_bytes: Table
    processes: _containers.RepeatedCompositeFieldContainer[Process]
    layout_hash: str
    def __init__(self, sequence: _Optional[int] = ..., host: _Optional[str] = ..., boot_id: _Optional[str] = ..., spans: _Optional[_Union[Table, _Mapping]] = ..., attributes: _Optional[_Union[Table, _Mapping]] = ..., strings: _Optional[_Union[Table, _Mapping]] = ..., string_bytes: _Optional[_Union[Table, _Mapping]] = ..., processes: _Optional[_Iterable[_Union[Process, _Mapping]]] = ..., layout_hash: _Optional[str] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("sequence", "stored_spans", "rejected_spans", "reason")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STORED_SPANS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_SPANS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    stored_spans: int
    rejected_spans: int
    reason: str
    def __init__(self, sequence: _Optional[int] = ..., stored_spans: _Optional[int] = ..., rejected_spans: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("values", "balances", "time_ns")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    VALUES_FIELD_NUMBER: _ClassVar[int]
    BALANCES_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    values: _containers.ScalarMap[str, int]
    balances: _containers.RepeatedCompositeFieldContainer[Balance]
    time_ns: int
    def __init__(self, values: _Optional[_Mapping[str, int]] = ..., balances: _Optional[_Iterable[_Union[Balance, _Mapping]]] = ..., time_ns: _Optional[int] = ...) -> None: ...

class Balance(_message.Message):
    __slots__ = ("name", "left", "right", "slack")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    SLACK_FIELD_NUMBER: _ClassVar[int]
    name: str
    left: int
    right: int
    slack: int
    def __init__(self, name: _Optional[str] = ..., left: _Optional[int] = ..., right: _Optional[int] = ..., slack: _Optional[int] = ...) -> None: ...
