# distutils: language = c++
# cython: language_level=3, binding=True, auto_pickle=False, autotestdict=False
"""The boundary to the Flight transport: convert, drop the GIL, call, wrap."""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libcpp.memory cimport shared_ptr, unique_ptr
from libcpp.string cimport string

from sabot_native.transport cimport (
    ArrowArrayStream,
    CppFlightClientPool,
    CppFlightServer,
    CppRemoteRead,
    FlightClientConfig,
    FlightServerConfig,
    FlightServerMetrics,
    SabotTicketSource,
    kTicketSourceCapsule,
    rethrow_stream_error,
    set_exception_types,
)

from sabot_native import errors

set_exception_types({name: error for name, error in vars(errors).items() if isinstance(error, type)})


cdef void release_stream_capsule(object capsule) noexcept:
    cdef ArrowArrayStream* stream = <ArrowArrayStream*>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if stream.release != NULL:
        stream.release(stream)
    free(stream)


cdef class Server:
    cdef unique_ptr[CppFlightServer] server

    def __cinit__(self, source, *, host, port, token, tls_certificate, tls_key, tls_client_root, compression, wire_bytes_per_second):
        cdef FlightServerConfig config
        config.host = host.encode()
        config.port = port
        config.token = token.encode()
        config.tls_certificate = tls_certificate
        config.tls_key = tls_key
        config.tls_client_root = tls_client_root
        config.compression.mode = compression.encode()
        config.compression.wire_bytes_per_second = wire_bytes_per_second
        cdef SabotTicketSource* pointer = <SabotTicketSource*>PyCapsule_GetPointer(source, kTicketSourceCapsule)
        cdef SabotTicketSource taken = pointer[0]
        pointer.context = NULL
        self.server.reset(new CppFlightServer(taken, config))

    @property
    def port(self):
        return self.server.get().port()

    def metrics(self):
        cdef FlightServerMetrics metrics = self.server.get().metrics()
        return {
            "streams": metrics.streams,
            "lz4_streams": metrics.lz4_streams,
            "zstd_streams": metrics.zstd_streams,
            "refused": metrics.refused,
            "messages": metrics.messages,
            "rows": metrics.rows,
            "bytes": metrics.bytes,
            "sent_bytes": metrics.sent_bytes,
        }

    def shutdown(self):
        with nogil:
            self.server.get().shutdown()


cdef class ClientPool:
    cdef unique_ptr[CppFlightClientPool] pool

    def __cinit__(self, *, host, port, token, tls, tls_root_certificate, tls_certificate, tls_key, connections, credit_bytes):
        cdef FlightClientConfig config
        config.host = host.encode()
        config.port = port
        config.token = token.encode()
        config.tls = tls
        config.tls_root_certificate = tls_root_certificate
        config.tls_certificate = tls_certificate
        config.tls_key = tls_key
        config.connections = connections
        config.credit_bytes = credit_bytes
        self.pool.reset(new CppFlightClientPool(config))

    def read(self, ticket, deadline_ms):
        return RemoteStream.wrap(self.pool.get().read(<bytes?>ticket, max(1, int(deadline_ms))))


cdef class RemoteStream:
    """Partitions of an agent on another host: every consumer has them fetched anew."""

    cdef shared_ptr[CppRemoteRead] remote

    @staticmethod
    cdef RemoteStream wrap(shared_ptr[CppRemoteRead] remote):
        cdef RemoteStream result = RemoteStream.__new__(RemoteStream)
        result.remote = remote
        return result

    def __arrow_c_stream__(self, requested_schema=None):
        cdef ArrowArrayStream* stream = <ArrowArrayStream*>malloc(sizeof(ArrowArrayStream))
        stream.release = NULL
        capsule = PyCapsule_New(stream, "arrow_array_stream", release_stream_capsule)
        with nogil:
            self.remote.get().open(stream)
        return capsule

    def cancel(self):
        with nogil:
            self.remote.get().cancel()

    def raise_error(self):
        rethrow_stream_error(self.remote.get().error())
