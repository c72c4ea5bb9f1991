# distutils: language = c++
"""Declarations of the Flight transport for _flight.pyx."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp cimport bool
from libcpp.memory cimport shared_ptr
from libcpp.string cimport string


cdef extern from "python_errors.hpp" namespace "sabot" nogil:
    cdef cppclass ErrorSlot:
        pass

    void raise_python_error()
    void set_exception_types(dict types)
    void rethrow_stream_error(ErrorSlot&) except +raise_python_error


cdef extern from "sabot/ticket_source.hpp" nogil:
    cdef struct ArrowArrayStream:
        void (*release)(ArrowArrayStream*)

    cdef struct SabotTicketSource:
        void* context

    const char* kTicketSourceCapsule


cdef extern from "flight_server.hpp" namespace "sabot" nogil:
    cdef cppclass CompressionConfig:
        string mode
        uint64_t wire_bytes_per_second

    cdef cppclass FlightServerConfig:
        string host
        int port
        string token
        string tls_certificate
        string tls_key
        string tls_client_root
        CompressionConfig compression

    cdef cppclass FlightServerMetrics:
        uint64_t streams
        uint64_t lz4_streams
        uint64_t zstd_streams
        uint64_t refused
        uint64_t messages
        uint64_t rows
        uint64_t bytes
        uint64_t sent_bytes

    cdef cppclass CppFlightServer "sabot::FlightServer":
        CppFlightServer(SabotTicketSource, const FlightServerConfig&) except +raise_python_error
        int port()
        FlightServerMetrics metrics()
        void shutdown()


cdef extern from "flight_client.hpp" namespace "sabot" nogil:
    cdef cppclass FlightClientConfig:
        string host
        int port
        string token
        bool tls
        string tls_root_certificate
        string tls_certificate
        string tls_key
        uint32_t connections
        uint32_t credit_bytes

    cdef cppclass CppRemoteRead "sabot::RemoteRead":
        void open(ArrowArrayStream*) except +raise_python_error
        void cancel()
        ErrorSlot& error()

    cdef cppclass CppFlightClientPool "sabot::FlightClientPool":
        CppFlightClientPool(const FlightClientConfig&) except +raise_python_error
        shared_ptr[CppRemoteRead] read(const string&, int64_t) except +raise_python_error
