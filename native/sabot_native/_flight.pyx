# distutils: language = c++
# cython: language_level=3, binding=True, auto_pickle=False, autotestdict=False
"""The boundary to the Flight transport: convert, drop the GIL, call, wrap."""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string

from sabot_native.transport cimport (
    ArrowArrayStream,
    CppFlightClientPool,
    CppFlightServer,
    FlightClientConfig,
    FlightServerConfig,
    SabotTicketSource,
    kTicketSourceCapsule,
)


cdef void release_stream_capsule(object capsule) noexcept:
    cdef ArrowArrayStream* stream = <ArrowArrayStream*>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if stream.release != NULL:
        stream.release(stream)
    free(stream)


cdef class Server:
    cdef unique_ptr[CppFlightServer] server

    def __cinit__(self, source, host, port, tls_certificate, tls_key):
        cdef FlightServerConfig config
        config.host = host.encode()
        config.port = port
        config.tls_certificate = tls_certificate
        config.tls_key = tls_key
        cdef SabotTicketSource* pointer = <SabotTicketSource*>PyCapsule_GetPointer(source, kTicketSourceCapsule)
        cdef SabotTicketSource taken = pointer[0]
        pointer.context = NULL
        self.server.reset(new CppFlightServer(taken, config))

    @property
    def port(self):
        return self.server.get().port()

    def shutdown(self):
        with nogil:
            self.server.get().shutdown()


cdef class ClientPool:
    cdef unique_ptr[CppFlightClientPool] pool

    def __cinit__(self, host, port, tls_root_certificate, connections):
        cdef FlightClientConfig config
        config.host = host.encode()
        config.port = port
        config.tls_root_certificate = tls_root_certificate
        config.connections = connections
        self.pool.reset(new CppFlightClientPool(config))

    def read(self, ticket, deadline_ms):
        cdef ArrowArrayStream* stream = <ArrowArrayStream*>malloc(sizeof(ArrowArrayStream))
        stream.release = NULL
        capsule = PyCapsule_New(stream, "arrow_array_stream", release_stream_capsule)
        cdef string name = <bytes?>ticket
        cdef int64_t deadline = -1 if deadline_ms is None else max(0, int(deadline_ms))
        with nogil:
            self.pool.get().read(name, deadline, stream)
        return capsule
