# distutils: language = c++
"""Declarations of the Flight transport for _flight.pyx."""

from libc.stdint cimport int64_t, uint32_t
from libcpp.string cimport string


cdef extern from "sabot/ticket_source.hpp" nogil:
    cdef struct ArrowArrayStream:
        void (*release)(ArrowArrayStream*)

    cdef struct SabotTicketSource:
        void* context

    const char* kTicketSourceCapsule


cdef extern from "flight_server.hpp" namespace "sabot" nogil:
    cdef cppclass FlightServerConfig:
        string host
        int port
        string tls_certificate
        string tls_key

    cdef cppclass CppFlightServer "sabot::FlightServer":
        CppFlightServer(SabotTicketSource, const FlightServerConfig&) except +
        int port()
        void shutdown()


cdef extern from "flight_client.hpp" namespace "sabot" nogil:
    cdef cppclass FlightClientConfig:
        string host
        int port
        string tls_root_certificate
        uint32_t connections

    cdef cppclass CppFlightClientPool "sabot::FlightClientPool":
        CppFlightClientPool(const FlightClientConfig&) except +
        void read(const string&, int64_t, ArrowArrayStream*) except +
