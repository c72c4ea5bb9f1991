# distutils: language = c++
# cython: language_level=3, binding=True, freethreading_compatible=False, auto_pickle=False, autotestdict=False
"""The boundary to the C++ core: convert, drop the GIL, call, wrap."""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libcpp cimport bool
from libcpp.memory cimport make_shared, shared_ptr, unique_ptr
from libcpp.string cimport string
from libcpp.utility cimport move
from libcpp.vector cimport vector

from sabot_native.core cimport (
    ArrowArrayStream,
    ArrowSchema,
    CppCancelToken,
    CppHeartbeat,
    CppManifest,
    CppScheme,
    CppShuffleManager,
    LiveRead,
    ManagerMetrics,
    ManifestPtr,
    OutputKey,
    OutputSpec,
    OwnedStream,
    ReadPlan,
    SabotTicketSource,
    StoreConfig,
    Watch,
    add_key,
    check_array_stream,
    add_output,
    export_field,
    kTicketSourceCapsule,
    make_ticket_source,
    manifest_from_bytes,
    milliseconds,
    native_distinct_count,
    open_live_stream,
    open_stream,
    read_sealed,
    rethrow_stream_error,
    seal_live_ticket,
    seal_ticket,
    set_exception_types,
    sketch_bytes,
)

import os

from sabot_native import errors

set_exception_types({name: error for name, error in vars(errors).items() if isinstance(error, type)})


cdef void release_schema_capsule(object capsule) noexcept:
    cdef ArrowSchema* schema = <ArrowSchema*>PyCapsule_GetPointer(capsule, "arrow_schema")
    if schema.release != NULL:
        schema.release(schema)
    free(schema)


cdef void release_stream_capsule(object capsule) noexcept:
    cdef ArrowArrayStream* stream = <ArrowArrayStream*>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if stream.release != NULL:
        stream.release(stream)
    free(stream)


cdef void release_ticket_source_capsule(object capsule) noexcept:
    cdef SabotTicketSource* source = <SabotTicketSource*>PyCapsule_GetPointer(capsule, kTicketSourceCapsule)
    if source.context != NULL:
        source.release(source.context)
    free(source)


cdef string text(value):
    return (<str?>value).encode()


cdef vector[string] texts(values):
    cdef vector[string] result
    for value in values:
        result.push_back(text(value))
    return result


cdef bytes blob(string value):
    return value


cdef vector[string] blobs(values):
    cdef vector[string] result
    for value in values:
        result.push_back(bytes(value))
    return result


cdef class CancelToken:
    """Ends the operations it was given to, from any thread."""

    cdef shared_ptr[CppCancelToken] token

    def __cinit__(self):
        self.token = make_shared[CppCancelToken]()

    def cancel(self):
        """Make every operation that has this token raise Cancelled at its next batch."""
        self.token.get().cancel()

    @property
    def cancelled(self):
        """Whether cancel() was called."""
        return self.token.get().cancelled()


cdef Watch watch_of(CancelToken cancel, deadline_ms):
    cdef shared_ptr[CppCancelToken] token
    if cancel is not None:
        token = cancel.token
    return Watch.after(token, -1 if deadline_ms is None else max(0, int(deadline_ms)))


cdef class Heartbeat:
    """Tells whether the process at the other end of a socket runs, whatever holds the GIL here or there.

    A thread asks every ``interval_ms`` and answers what the other end asks; 0 asks nothing. The descriptor is copied.
    """

    cdef unique_ptr[CppHeartbeat] heartbeat

    def __cinit__(self, descriptor, interval_ms):
        self.heartbeat.reset(new CppHeartbeat(descriptor, milliseconds(interval_ms)))

    @property
    def silent_ms(self):
        """How long a question has been unanswered; time in which the thread itself did not run is left out."""
        return self.heartbeat.get().silent_ms()

    def stop(self):
        """End the thread."""
        with nogil:
            self.heartbeat.get().stop()


cdef class Scheme:
    """How a writer splits rows into partitions."""

    cdef CppScheme scheme
    cdef str description

    @staticmethod
    cdef Scheme wrap(CppScheme scheme, str description):
        cdef Scheme result = Scheme.__new__(Scheme)
        result.scheme = scheme
        result.description = description
        return result

    @staticmethod
    def single():
        """One partition."""
        return Scheme.wrap(CppScheme.single(), "single()")

    @staticmethod
    def hash_column(column, partitions):
        """By a UBIGINT column that already holds the hash: partition ((h >> 32) * n) >> 32. It is not stored."""
        return Scheme.wrap(CppScheme.hash_column(text(column), partitions), f"hash_column({column!r}, {partitions})")

    @staticmethod
    def hash_columns(columns, partitions):
        """By the native hash of the columns, which agrees with SQL equality within a type."""
        return Scheme.wrap(CppScheme.hash_columns(texts(columns), partitions), f"hash_columns({list(columns)!r}, {partitions})")

    @staticmethod
    def range_column(column, bounds):
        """By a BLOB sort key in memcmp order: partition = number of bounds <= key. It is not stored."""
        return Scheme.wrap(CppScheme.range(text(column), blobs(bounds)), f"range_column({column!r}, {len(bounds)} bounds)")

    @staticmethod
    def sampled(column, sample_rows=1024):
        """One partition that keeps the BLOB column and samples it uniformly into the manifest, to be split later."""
        return Scheme.wrap(CppScheme.sampled(text(column), sample_rows), f"sampled({column!r}, {sample_rows})")

    @staticmethod
    def round_robin(partitions):
        """The same number of rows to every partition, give or take one."""
        return Scheme.wrap(CppScheme.round_robin(partitions), f"round_robin({partitions})")

    @property
    def partitions(self):
        """How many there are."""
        return self.scheme.partitions

    def __repr__(self):
        return f"Scheme.{self.description}"


cdef class Manifest:
    """What a task committed for one output."""

    cdef ManifestPtr manifest

    @staticmethod
    cdef Manifest wrap(ManifestPtr manifest):
        cdef Manifest result = Manifest.__new__(Manifest)
        result.manifest = manifest
        return result

    @property
    def query_id(self):
        """The query that wrote it."""
        return self.manifest.get().name.query_id.decode()

    @property
    def edge_id(self):
        """The edge whose rows these are."""
        return self.manifest.get().name.edge_id.decode()

    @property
    def task(self):
        """The number of the task that wrote it."""
        return self.manifest.get().name.task

    @property
    def attempt(self):
        """Which attempt of the task wrote it, from 0."""
        return self.manifest.get().name.attempt

    @property
    def agent_id(self):
        """Whose manager holds the segments."""
        return self.manifest.get().agent_id.decode()

    @property
    def rows(self):
        """Rows of all partitions."""
        return self.manifest.get().rows()

    @property
    def bytes(self):
        """Size of the rows as stored."""
        return self.manifest.get().bytes()

    @property
    def batches(self):
        """Record batches of all partitions."""
        return self.manifest.get().batches()

    @property
    def spilled_bytes(self):
        """Written to disk to make room for it, whoever's rows that were."""
        return self.manifest.get().spilled_bytes

    @property
    def wait_ms(self):
        """Milliseconds that its writer waited for that room, and for its readers' credit."""
        return self.manifest.get().wait_ns / 1e6

    @property
    def partition_rows(self):
        """Rows of each partition."""
        cdef const CppManifest* manifest = self.manifest.get()
        return [manifest.partitions[i].rows for i in range(manifest.partitions.size())]

    @property
    def partition_bytes(self):
        """Bytes of each partition as stored."""
        cdef const CppManifest* manifest = self.manifest.get()
        return [manifest.partitions[i].bytes for i in range(manifest.partitions.size())]

    @property
    def partition_batches(self):
        """Record batches of each partition."""
        cdef const CppManifest* manifest = self.manifest.get()
        return [manifest.partitions[i].segments.size() for i in range(manifest.partitions.size())]

    @property
    def heavy(self):
        """(hash, count, error bound) of the heavy hitters of a hash scheme, heaviest first."""
        cdef const CppManifest* manifest = self.manifest.get()
        return [(manifest.heavy[i].hash, manifest.heavy[i].count, manifest.heavy[i].error) for i in range(manifest.heavy.size())]

    @property
    def key_sketch(self):
        """The least hashes of a hash scheme's keys, for ``distinct_count``."""
        return blob(sketch_bytes(self.manifest.get().least_hashes))

    @property
    def sample(self):
        """Keys drawn by ``Scheme.sampled``."""
        cdef const CppManifest* manifest = self.manifest.get()
        return [blob(manifest.sample[i]) for i in range(manifest.sample.size())]

    def to_bytes(self):
        """For another process of this host."""
        return blob(self.manifest.get().to_bytes())

    @staticmethod
    def from_bytes(bytes data not None):
        """Raises CorruptSegment for anything that to_bytes() did not write."""
        return Manifest.wrap(manifest_from_bytes(data, len(data)))

    def __repr__(self):
        return (f"<Manifest {self.query_id}/{self.edge_id} task {self.task} attempt {self.attempt}: {self.rows} rows, "
                f"{self.bytes} bytes in {len(self.partition_rows)} partitions>")


def check_stream(stream):
    """Follow every offset, view and index of a stream of this process to see that none leads out of its arrays.

    Buffers of values are taken to be as large as the last offset says, which ``Table.validate()`` finds out in no time.
    Raises StreamError where one does, UnsupportedType for a type that the shuffle does not have.
    """
    capsule = stream.__arrow_c_stream__()
    cdef ArrowArrayStream* source = <ArrowArrayStream*>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    with nogil:
        check_array_stream(source[0])


def distinct_count(sketches):
    """Distinct keys of all rows that sketches of one hash saw: exact below 256, then with a standard error of 6.3 %.

    Of more than 16,384 rows in one output, a key that comes late and seldom where there are few may go unseen.
    Raises CorruptSegment for anything that is no sketch.
    """
    return native_distinct_count(blobs(sketches))


cdef class PartitionStream:
    """Committed partitions as an Arrow stream, read anew by every consumer and without copying where possible."""

    cdef shared_ptr[ReadPlan] plan

    @staticmethod
    cdef PartitionStream wrap(shared_ptr[ReadPlan] plan):
        cdef PartitionStream result = PartitionStream.__new__(PartitionStream)
        result.plan = plan
        return result

    @property
    def rows(self):
        """Rows that the partitions hold."""
        return self.plan.get().rows()

    def __arrow_c_schema__(self):
        cdef ArrowSchema* schema = <ArrowSchema*>malloc(sizeof(ArrowSchema))
        schema.release = NULL
        capsule = PyCapsule_New(schema, "arrow_schema", release_schema_capsule)
        export_field(self.plan.get().schema(), schema)
        return capsule

    def __arrow_c_stream__(self, requested_schema=None):
        cdef ArrowArrayStream* stream = <ArrowArrayStream*>malloc(sizeof(ArrowArrayStream))
        stream.release = NULL
        capsule = PyCapsule_New(stream, "arrow_array_stream", release_stream_capsule)
        open_stream(self.plan, stream)
        return capsule

    def raise_error(self):
        """Raise the error that ended a stream, if one did: consumers report it as an error of their own."""
        rethrow_stream_error(self.plan.get().error())


cdef class LiveStream:
    """Batches of outputs that are still being written; each is delivered to one reader only."""

    cdef shared_ptr[LiveRead] read

    @staticmethod
    cdef LiveStream wrap(shared_ptr[LiveRead] read):
        cdef LiveStream result = LiveStream.__new__(LiveStream)
        result.read = read
        return result

    def __arrow_c_stream__(self, requested_schema=None):
        cdef ArrowArrayStream* stream = <ArrowArrayStream*>malloc(sizeof(ArrowArrayStream))
        stream.release = NULL
        capsule = PyCapsule_New(stream, "arrow_array_stream", release_stream_capsule)
        open_live_stream(self.read, stream)
        return capsule

    def raise_error(self):
        """Raise the error that ended the stream, if one did."""
        rethrow_stream_error(self.read.get().error)


cdef class ShuffleManager:
    """An agent's shuffle memory: writes and commits outputs, reads committed outputs of any agent of this host.

    ``budget_bytes`` bound its pool; what does not fit goes to files in ``spill_directory``, ``spill_quota_bytes`` at
    most. Memory is taken by segments of ``segment_bytes``. It may be used by several threads.
    """

    cdef shared_ptr[CppShuffleManager] manager

    def __cinit__(self, agent_id, *, budget_bytes, spill_directory, spill_quota_bytes=1 << 40, segment_bytes=1 << 20):
        cdef StoreConfig config
        config.budget_bytes = budget_bytes
        config.segment_bytes = segment_bytes
        config.spill_quota_bytes = spill_quota_bytes
        config.spill_directory = os.fsencode(spill_directory)
        self.manager.reset(new CppShuffleManager(text(agent_id), config))

    def register_shuffle(self, query_id):
        """From here until the query is released its edges may be written here; again is nothing new.

        What was written after its query's release would be freed by nobody.
        """
        self.manager.get().register_shuffle(text(query_id))

    def write_partition(self, stream, outputs, *, CancelToken cancel=None, deadline_ms=None, bool live=False):
        """Write what one task, a partition of its operator, gives: drain the stream, then commit all outputs or none.

        The GIL is not held. Raises NativeError for a query that is not registered.

        With ``live``, follow() delivers their batches meanwhile, and read() finds only what nobody took.
        """
        cdef vector[OutputSpec] specs
        for output in outputs:
            add_output(specs, text(output.query_id), text(output.edge_id), output.task, output.attempt,
                       (<Scheme?>output.scheme).scheme, output.columns is None, texts(output.columns or ()))
        cdef Watch watch = watch_of(cancel, deadline_ms)
        capsule = stream.__arrow_c_stream__()
        cdef OwnedStream owned = OwnedStream(<ArrowArrayStream*>PyCapsule_GetPointer(capsule, "arrow_array_stream"))
        cdef vector[ManifestPtr] manifests
        with nogil:
            manifests = self.manager.get().write_partition(move(owned), specs, watch, live)
        return [Manifest.wrap(manifests[i]) for i in range(manifests.size())]

    def read(self, manifests, first, last, *, CancelToken cancel=None, deadline_ms=None):
        """Partitions [first, last) of the manifests, manifest by manifest, in the order written."""
        cdef vector[ManifestPtr] pointers
        for manifest in manifests:
            pointers.push_back((<Manifest?>manifest).manifest)
        return PartitionStream.wrap(self.manager.get().read(pointers, first, last, watch_of(cancel, deadline_ms)))

    def follow(self, query_id, edge_id, tasks, first, last, *, CancelToken cancel=None, deadline_ms=None):
        """Partitions [first, last) of the outputs of (task, attempt), as they are written; waits for them to begin."""
        cdef vector[OutputKey] keys
        for task, attempt in tasks:
            add_key(keys, text(query_id), text(edge_id), task, attempt)
        return LiveStream.wrap(self.manager.get().follow(keys, first, last, watch_of(cancel, deadline_ms)))

    def split(self, Manifest manifest not None, bounds, attempt):
        """Partition a ``sampled`` output by bounds; the new output takes its place, without the key column."""
        cdef vector[string] values = blobs(bounds)
        cdef uint32_t number = attempt
        cdef ManifestPtr result
        with nogil:
            result = self.manager.get().split(manifest.manifest, values, number)
        return Manifest.wrap(result)

    def release(self, query_id, edge_id=None):
        """Free the outputs of one edge, which may be written again, or of a query, which is then forgotten.

        Writes to them end. Arrays already read stay valid.
        """
        cdef string query = text(query_id)
        cdef string edge = text(edge_id or "")
        with nogil:
            self.manager.get().release(query, edge)

    def metrics(self):
        """Counters and gauges: pool_bytes, peak_pool_bytes, spilled_bytes, rows, bytes, batches, wait_ms, ..."""
        cdef ManagerMetrics metrics = self.manager.get().metrics()
        return {
            "budget_bytes": metrics.store.budget_bytes,
            "pool_bytes": metrics.store.pool_bytes,
            "peak_pool_bytes": metrics.store.peak_pool_bytes,
            "segments": metrics.store.segments,
            "spilled_bytes": metrics.store.spilled_bytes,
            "spill_events": metrics.store.spill_events,
            "disk_bytes": metrics.store.disk_bytes,
            "wait_ms": metrics.wait_ms,
            "rows": metrics.rows,
            "bytes": metrics.bytes,
            "batches": metrics.batches,
            "outputs": metrics.outputs,
            "writers": metrics.writers,
            "write_ms": metrics.write_ms,
        }

    def arena_fd(self):
        """The memfd of the pool, owned by the manager; a peer process passes a duplicate to attach_peer()."""
        return self.manager.get().arena_fd()

    def attach_peer(self, agent_id, arena_fd, spill_directory):
        """Make the committed outputs of another process of this host readable here. The descriptor is duplicated."""
        self.manager.get().attach_peer(text(agent_id), arena_fd, os.fsencode(spill_directory))

    def detach_peer(self, agent_id):
        """Give up the mapping of a peer, which frees a dead peer's memory once nothing read from it is held."""
        self.manager.get().detach_peer(text(agent_id))

    def trim(self):
        """Give the pool's memory that holds nothing back to the system; it is taken again when it is needed."""
        with nogil:
            self.manager.get().trim()

    def ticket(self, manifests, first, last, key):
        """A ticket for partitions [first, last) of outputs of one edge, sealed with the session's key."""
        cdef vector[ManifestPtr] pointers
        for manifest in manifests:
            pointers.push_back((<Manifest?>manifest).manifest)
        return blob(seal_ticket(pointers, first, last, <bytes?>key))

    def live_ticket(self, query_id, edge_id, tasks, first, last, key):
        """A ticket for following outputs of (task, attempt) over a transport while they are written here."""
        cdef vector[OutputKey] keys
        for task, attempt in tasks:
            add_key(keys, text(query_id), text(edge_id), task, attempt)
        return blob(seal_live_ticket(keys, first, last, <bytes?>key))

    def read_ticket(self, ticket, key):
        """What a ticket names; raises InvalidTicket unless ticket() made it with this key."""
        return PartitionStream.wrap(read_sealed(self.manager.get()[0], <bytes?>ticket, <bytes?>key))

    def ticket_source(self, key):
        """A capsule through which a transport opens tickets sealed with ``key``."""
        cdef SabotTicketSource* source = <SabotTicketSource*>malloc(sizeof(SabotTicketSource))
        source.context = NULL
        capsule = PyCapsule_New(source, kTicketSourceCapsule, release_ticket_source_capsule)
        source[0] = make_ticket_source(self.manager, <bytes?>key)
        return capsule

    def close(self):
        """Free everything; arrays that consumers hold stay valid."""
        with nogil:
            self.manager.get().close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
