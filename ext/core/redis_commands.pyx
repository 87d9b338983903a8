# SPDX-License-Identifier: Apache-2.0
"""The commands of Redis by name: which of their words may be shown, and what reply to expect. Knows no bytes of the protocol.

A command that is not here is shown as "redis": its name may be a module's, or a value in a stream that was joined late.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from dt_proto cimport *

cdef extern from "dt_proto.h" nogil:
    enum: DT_ATTR_SPAN_NAME, DT_ATTR_DB_SYSTEM_NAME, DT_ATTR_DB_OPERATION_NAME, DT_ATTR_DB_QUERY_TEXT

cdef enum:
    TABLE_SIZE = 1024  # power of two, more than twice the commands

cdef Command commands[512]  # entry 0: not a known command, which may be a secret and is therefore not shown
cdef short slots[TABLE_SIZE]

KEYED = """
APPEND DECR DECRBY GET GETDEL GETEX GETRANGE GETSET INCR INCRBY INCRBYFLOAT LCS MGET MSET MSETNX PSETEX SET SETEX SETNX
SETRANGE STRLEN SUBSTR BITCOUNT BITFIELD BITFIELD_RO BITPOS GETBIT SETBIT COPY DEL DUMP EXISTS EXPIRE EXPIREAT EXPIRETIME
MOVE PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PTTL RENAME RENAMENX RESTORE SORT SORT_RO TOUCH TTL TYPE UNLINK WATCH HDEL
HEXISTS HEXPIRE HEXPIREAT HEXPIRETIME HGET HGETALL HGETDEL HGETEX HINCRBY HINCRBYFLOAT HKEYS HLEN HMGET HMSET HPERSIST
HPEXPIRE HPEXPIREAT HPEXPIRETIME HPTTL HRANDFIELD HSCAN HSET HSETEX HSETNX HSTRLEN HTTL HVALS BLMOVE BLPOP BRPOP BRPOPLPUSH
LINDEX LINSERT LLEN LMOVE LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM RPOP RPOPLPUSH RPUSH RPUSHX SADD SCARD SDIFF
SDIFFSTORE SINTER SINTERSTORE SISMEMBER SMEMBERS SMISMEMBER SMOVE SPOP SRANDMEMBER SREM SSCAN SUNION SUNIONSTORE BZPOPMAX
BZPOPMIN ZADD ZCARD ZCOUNT ZDIFFSTORE ZINCRBY ZINTERSTORE ZLEXCOUNT ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX
ZRANGEBYSCORE ZRANGESTORE ZRANK ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYLEX
ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNIONSTORE XACK XACKDEL XADD XAUTOCLAIM XCLAIM XDEL XDELEX XLEN XPENDING XRANGE
XREVRANGE XSETID XTRIM GEOADD GEODIST GEOHASH GEOPOS GEORADIUS GEORADIUS_RO GEORADIUSBYMEMBER GEORADIUSBYMEMBER_RO
GEOSEARCH GEOSEARCHSTORE PFADD PFCOUNT PFMERGE VADD VCARD VDIM VEMB VGETATTR VINFO VISMEMBER VLINKS VRANDMEMBER VREM
VSETATTR VSIM JSON.ARRAPPEND JSON.ARRLEN JSON.CLEAR JSON.DEL JSON.GET JSON.MERGE JSON.MGET JSON.MSET JSON.NUMINCRBY
JSON.OBJKEYS JSON.SET JSON.STRLEN JSON.TYPE BF.ADD BF.EXISTS BF.INSERT BF.MADD BF.MEXISTS BF.RESERVE CF.ADD CF.DEL
CF.EXISTS TS.ADD TS.CREATE TS.GET TS.INCRBY TS.MADD TS.RANGE TS.REVRANGE FT.AGGREGATE FT.CREATE FT.INFO FT.SEARCH
"""
PLAIN = """
ECHO INFO DBSIZE FLUSHALL FLUSHDB KEYS SCAN RANDOMKEY SELECT SWAPDB TIME WAIT WAITAOF LASTSAVE SAVE BGSAVE BGREWRITEAOF ROLE
REPLICAOF SLAVEOF FAILOVER SHUTDOWN MONITOR MULTI EXEC DISCARD UNWATCH PUBLISH SPUBLISH ASKING READONLY READWRITE BITOP LMPOP
BLMPOP SINTERCARD ZDIFF ZINTER ZINTERCARD ZUNION ZMPOP BZMPOP XREAD XREADGROUP LOLWUT RESTORE-ASKING REPLCONF
"""
SECRETS = "AUTH HELLO MIGRATE EVAL EVAL_RO EVALSHA EVALSHA_RO FCALL FCALL_RO"
SUBSCRIBES = "SUBSCRIBE UNSUBSCRIBE PSUBSCRIBE PUNSUBSCRIBE SSUBSCRIBE SUNSUBSCRIBE"
ANY_TIME = "PING QUIT RESET"
REPLICATES = "SYNC PSYNC"
CONTAINERS = {
    "CLIENT": "CACHING GETNAME GETREDIR ID INFO KILL LIST NO-EVICT NO-TOUCH PAUSE REPLY SETINFO SETNAME TRACKING TRACKINGINFO "
    "UNBLOCK UNPAUSE",
    "CLUSTER": "COUNTKEYSINSLOT FORGET GETKEYSINSLOT INFO KEYSLOT LINKS MEET MYID MYSHARDID NODES REPLICAS REPLICATE RESET "
    "SHARDS SLAVES SLOTS",
    "COMMAND": "COUNT DOCS GETKEYS GETKEYSANDFLAGS INFO LIST",
    "LATENCY": "DOCTOR GRAPH HISTOGRAM HISTORY LATEST RESET",
    "MEMORY": "DOCTOR MALLOC-STATS PURGE STATS USAGE",
    "OBJECT": "ENCODING FREQ IDLETIME REFCOUNT",
    "PUBSUB": "CHANNELS NUMPAT NUMSUB SHARDCHANNELS SHARDNUMSUB",
    "SLOWLOG": "GET LEN RESET",
    "XGROUP": "CREATE CREATECONSUMER DELCONSUMER DESTROY SETID",
    "XINFO": "CONSUMERS GROUPS STREAM",
}
SECRET_CONTAINERS = {
    "ACL": "CAT DELUSER DRYRUN GENPASS GETUSER LIST LOAD LOG SAVE SETUSER USERS WHOAMI",
    "CONFIG": "GET RESETSTAT REWRITE SET",
    "DEBUG": "OBJECT SLEEP",
    "FUNCTION": "DELETE DUMP FLUSH KILL LIST LOAD RESTORE STATS",
    "MODULE": "LIST LOAD LOADEX UNLOAD",
    "SCRIPT": "DEBUG EXISTS FLUSH KILL LOAD",
    "SENTINEL": "CKQUORUM FAILOVER GET-MASTER-ADDR-BY-NAME MASTER MASTERS MONITOR MYID REPLICAS SENTINELS SET SLAVES",
}


cdef uint32_t name_hash(const uint64_t *name) noexcept nogil:
    cdef uint64_t h = (name[0] * 0x9e3779b97f4a7c15ull) ^ (name[1] * 0xc2b2ae3d27d4eb4full)
    h ^= (name[2] * 0x165667b19e3779f9ull) ^ (name[3] * 0x27d4eb2f165667c5ull)
    return <uint32_t>((h ^ (h >> 29)) * 0xbf58476d1ce4e5b9ull >> 40)


cdef uint32_t put_upper(uint8_t *to, uint32_t at, const uint8_t *word, uint32_t n) noexcept nogil:
    """Append word in upper case to a name of MAX_NAME bytes; the new size, or 0 if it does not fit."""
    cdef uint32_t i
    if n > MAX_NAME - at:
        return 0
    for i in range(n):
        to[at + i] = word[i] & 0xdf if c'a' <= word[i] <= c'z' else word[i]
    return at + n


cdef uint32_t command_find(const uint64_t *name) noexcept nogil:
    """The entry of an upper-case, zero-padded name; 0 if there is none."""
    cdef uint32_t slot = name_hash(name) & (TABLE_SIZE - 1)
    cdef const Command *c
    while slots[slot]:
        c = &commands[slots[slot]]
        if c.name[0] == name[0] and c.name[1] == name[1] and c.name[2] == name[2] and c.name[3] == name[3]:
            return slots[slot]
        slot = (slot + 1) & (TABLE_SIZE - 1)
    return 0


cdef uint32_t command_of(const uint8_t *word, uint32_t n) noexcept nogil:
    cdef uint64_t name[4]
    memset(name, 0, sizeof(name))
    return command_find(name) if put_upper(<uint8_t *>name, 0, word, n) else 0


cdef uint32_t command_of_two(uint32_t container, const uint8_t *word, uint32_t n) noexcept nogil:
    cdef uint64_t name[4]
    cdef uint32_t size = commands[container].size, found = 0
    memcpy(name, commands[container].name, sizeof(name))
    if size < MAX_NAME:
        (<uint8_t *>name)[size] = c' '
        if put_upper(<uint8_t *>name, size + 1, word, n):
            found = command_find(name)
    return found if found else container


cdef int n_commands = 0


cdef int command_add(bytes name, uint8_t kind, uint8_t hint) except -1:
    global n_commands
    cdef Command *c = &commands[n_commands]
    cdef dt_attrs run
    cdef uint32_t slot
    cdef bytes shown = name or b"redis"
    if n_commands >= 512 or len(name) > MAX_NAME:
        raise ValueError(f"the command table has no room for {name!r}")
    memcpy(c.name, <const uint8_t *>name, len(name))
    c.size = len(name)
    c.kind = kind
    c.hint = hint
    run.data = c.run
    run.size = 0
    run.capacity = sizeof(c.run)
    attrs_text(&run, DT_ATTR_DB_SYSTEM_NAME, b"redis", 5)
    attrs_text(&run, DT_ATTR_SPAN_NAME, shown, len(shown))
    if name:
        attrs_text(&run, DT_ATTR_DB_OPERATION_NAME, name, len(name))
        attrs_text(&run, DT_ATTR_DB_QUERY_TEXT, name, len(name))
        slot = name_hash(c.name) & (TABLE_SIZE - 1)
        while slots[slot]:
            slot = (slot + 1) & (TABLE_SIZE - 1)
        slots[slot] = n_commands
    c.run_size = run.size
    n_commands += 1
    return 0


def _fill():
    command_add(b"", SECRET, HINT_COMMAND)
    for words, kind, hint in (
        (KEYED, HAS_KEY, HINT_COMMAND),
        (PLAIN, 0, HINT_COMMAND),
        (SECRETS, SECRET, HINT_COMMAND),
        (SUBSCRIBES, 0, HINT_SUBSCRIBE),
        (ANY_TIME, 0, HINT_ANY_TIME),
        (REPLICATES, SECRET, HINT_REPLICATE),
    ):
        for word in words.split():
            command_add(word.encode(), kind, hint)
    for containers, kind in ((CONTAINERS, 0), (SECRET_CONTAINERS, SECRET)):
        for container, words in containers.items():
            command_add(container.encode(), kind | CONTAINER, HINT_COMMAND)
            for word in words.split():
                command_add(f"{container} {word}".encode(), kind, HINT_COMMAND)


_fill()


cdef const Command *command_at(uint32_t entry) noexcept nogil:
    return &commands[entry]
