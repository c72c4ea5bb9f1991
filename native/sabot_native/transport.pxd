# distutils: language = c++
"""Declarations of the Flight transport for _flight.pyx."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp cimport bool
from libcpp.memory cimport shared_ptr, unique_ptr
from libcpp.optional cimport optional
from libcpp.string cimport string
from libcpp.vector cimport vector


cdef extern from "python_errors.hpp" namespace "sabot" nogil:
    cdef cppclass ErrorSlot:
        pass

    void raise_python_error()
    void set_exception_types(dict types)
    void rethrow_stream_error(ErrorSlot&) except +raise_python_error


cdef extern from "sabot/ticket_source.hpp" nogil:
    cdef struct ArrowArrayStream:
        void (*release)(ArrowArrayStream*)

    cdef struct ArrowSchema:
        void (*release)(ArrowSchema*)

    cdef struct SabotTicketSource:
        void* context

    const char* kTicketSourceCapsule


cdef extern from "exchange.hpp" namespace "sabot" nogil:
    cdef cppclass CppExchange "sabot::Exchange":
        const string& command()
        const string& peer()
        void send(const string&) except +raise_python_error
        optional[string] receive() except +raise_python_error
        void send_stream(ArrowArrayStream*) except +raise_python_error
        void receive_stream(ArrowArrayStream*) except +raise_python_error
        ErrorSlot& error()
        void close()


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
        CppFlightServer(const FlightServerConfig&) except +raise_python_error
        void add_source(const string&, SabotTicketSource)
        void remove_source(const string&)
        void set_health(const string&)
        shared_ptr[CppExchange] accept(int64_t)
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
        uint32_t silence_ms

    cdef cppclass CppRemoteRead "sabot::RemoteRead":
        void open(ArrowArrayStream*) except +raise_python_error
        void cancel()
        ErrorSlot& error()

    cdef cppclass CppFlightClientPool "sabot::FlightClientPool":
        CppFlightClientPool(const FlightClientConfig&) except +raise_python_error
        shared_ptr[CppRemoteRead] read(const string&, int64_t) except +raise_python_error


cdef extern from "joined_read.hpp" namespace "sabot" nogil:
    cdef cppclass ReadPart:
        pass

    void add_local(vector[ReadPart]&, ArrowArrayStream*)
    void add_remote(vector[ReadPart]&, shared_ptr[CppRemoteRead])
    void release_parts(vector[ReadPart]&)
    void open_joined(ArrowSchema*, vector[ReadPart], size_t, ArrowArrayStream*) except +raise_python_error


cdef extern from "control_client.hpp" namespace "sabot" nogil:
    cdef cppclass CppPulse "sabot::Pulse":
        uint64_t silent_ms()
        void stop()

    cdef cppclass CppControlClient "sabot::ControlClient":
        CppControlClient(const FlightClientConfig&) except +raise_python_error
        string health(int64_t) except +raise_python_error
        shared_ptr[CppExchange] open(const string&) except +raise_python_error
        unique_ptr[CppPulse] pulse(int64_t) except +raise_python_error
