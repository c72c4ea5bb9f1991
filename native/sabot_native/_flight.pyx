# distutils: language = c++
# cython: language_level=3, binding=True, auto_pickle=False, autotestdict=False
"""The boundary to the Flight transport: convert, drop the GIL, call, wrap."""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libcpp.memory cimport shared_ptr, unique_ptr
from libcpp.optional cimport optional
from libcpp.string cimport string
from libcpp.utility cimport move
from libcpp.vector cimport vector

from sabot_native.transport cimport (
    ArrowArrayStream,
    ArrowSchema,
    CppControlClient,
    CppExchange,
    CppFlightClientPool,
    CppFlightServer,
    CppPulse,
    CppRemoteRead,
    FlightClientConfig,
    FlightServerConfig,
    FlightServerMetrics,
    ReadPart,
    add_local,
    add_remote,
    SabotTicketSource,
    kTicketSourceCapsule,
    open_joined,
    release_parts,
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
    """The C++ Flight server."""

    cdef unique_ptr[CppFlightServer] server

    def __cinit__(self, *, host, port, token, tls_certificate, tls_key, tls_client_root, compression, wire_bytes_per_second):
        cdef FlightServerConfig config
        config.host = host.encode()
        config.port = port
        config.token = token.encode()
        config.tls_certificate = tls_certificate
        config.tls_key = tls_key
        config.tls_client_root = tls_client_root
        config.compression.mode = compression.encode()
        config.compression.wire_bytes_per_second = wire_bytes_per_second
        self.server.reset(new CppFlightServer(config))

    def add_source(self, name, source):
        """Answer reads of tickets that name this source; it is a capsule of ShuffleManager.ticket_source()."""
        cdef SabotTicketSource* pointer = <SabotTicketSource*>PyCapsule_GetPointer(source, kTicketSourceCapsule)
        cdef SabotTicketSource taken = pointer[0]
        pointer.context = NULL
        self.server.get().add_source(name.encode(), taken)

    def remove_source(self, name):
        """Answer no more reads of that source."""
        cdef string text = name.encode()
        with nogil:
            self.server.get().remove_source(text)

    def set_health(self, text):
        """Answer the health question with this text from now on."""
        self.server.get().set_health(<bytes?>text)

    def accept(self, timeout_ms):
        """Wait for the next exchange that a client opens; None after timeout_ms, or once the server is down."""
        cdef int64_t wait_ms = timeout_ms
        cdef shared_ptr[CppExchange] exchange
        with nogil:
            exchange = self.server.get().accept(wait_ms)
        return Exchange.wrap(exchange) if exchange.get() != NULL else None

    @property
    def port(self):
        """The port that it listens on."""
        return self.server.get().port()

    def metrics(self):
        """Counters of reads, bytes and refusals."""
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
        """End all reads and exchanges, and listen no more."""
        with nogil:
            self.server.get().shutdown()


cdef FlightClientConfig client_config(dict options) except *:
    cdef FlightClientConfig config
    config.host = options["host"].encode()
    config.port = options["port"]
    config.token = options["token"].encode()
    config.tls = options["tls"]
    config.tls_root_certificate = options["tls_root_certificate"]
    config.tls_certificate = options["tls_certificate"]
    config.tls_key = options["tls_key"]
    config.connections = options.get("connections", 1)
    config.credit_bytes = options.get("credit_bytes", 4 << 20)
    config.silence_ms = options.get("silence_ms", 0)
    return config


cdef class Exchange:
    """One end of a stream of messages in both directions."""

    cdef shared_ptr[CppExchange] exchange

    @staticmethod
    cdef Exchange wrap(shared_ptr[CppExchange] exchange):
        cdef Exchange result = Exchange.__new__(Exchange)
        result.exchange = exchange
        return result

    @property
    def command(self):
        """What the client asked for."""
        return self.exchange.get().command()

    @property
    def peer(self):
        """The address of the client, as gRPC names it."""
        return self.exchange.get().peer().decode(errors="replace")

    def send(self, message):
        """Send a message of any size; waits while the connection is full. Raises SegmentLost once it is broken."""
        cdef string data = <bytes?>message
        with nogil:
            self.exchange.get().send(data)

    def receive(self):
        """Wait for the next message; None once the other end has ended the exchange, SegmentLost where it broke."""
        cdef optional[string] data
        with nogil:
            data = self.exchange.get().receive()
        if not data.has_value():
            return None
        cdef string message = data.value()
        return message

    def send_stream(self, stream):
        """At the client: send all batches, and how many rows they had."""
        capsule = stream.__arrow_c_stream__()
        cdef ArrowArrayStream* pointer = <ArrowArrayStream*>PyCapsule_GetPointer(capsule, "arrow_array_stream")
        with nogil:
            self.exchange.get().send_stream(pointer)

    def __arrow_c_stream__(self, requested_schema=None):
        """At the server: the stream that the client sends; it fails unless all of its rows came."""
        cdef ArrowArrayStream* stream = <ArrowArrayStream*>malloc(sizeof(ArrowArrayStream))
        stream.release = NULL
        capsule = PyCapsule_New(stream, "arrow_array_stream", release_stream_capsule)
        with nogil:
            self.exchange.get().receive_stream(stream)
        return capsule

    def raise_error(self):
        """Raise the error that ended the stream, if one did."""
        rethrow_stream_error(self.exchange.get().error())

    def close(self):
        """End the exchange; at the client whoever waits in it is woken."""
        with nogil:
            self.exchange.get().close()


cdef class Pulse:
    """Tells whether the other end of a connection runs and can be reached, whatever holds the GIL here or there."""

    cdef unique_ptr[CppPulse] pulse

    @staticmethod
    cdef Pulse wrap(unique_ptr[CppPulse] pulse):
        cdef Pulse result = Pulse.__new__(Pulse)
        result.pulse.swap(pulse)
        return result

    @property
    def silent_ms(self):
        """How long nothing was answered; time in which this process did not run itself is left out."""
        return self.pulse.get().silent_ms()

    def stop(self):
        """Ask no more."""
        with nogil:
            self.pulse.get().stop()

    def __dealloc__(self):
        with nogil:
            self.pulse.reset()


cdef class ControlClient:
    """A connection of its own to one agent's server."""

    cdef shared_ptr[CppControlClient] client

    def __cinit__(self, **options):
        self.client.reset(new CppControlClient(client_config(options)))

    cdef shared_ptr[CppControlClient] opened(self) except *:
        # A copy: another thread may close this one meanwhile.
        if self.client.get() == NULL:
            raise ValueError("the control client is closed")
        return self.client

    def health(self, deadline_ms):
        """What the server says of its agent; raises DeadlineExceeded, or SegmentLost where it is not there."""
        cdef int64_t limit_ms = max(1, int(deadline_ms))
        cdef shared_ptr[CppControlClient] client = self.opened()
        cdef string text
        with nogil:
            text = client.get().health(limit_ms)
        return text

    def open(self, command):
        """Open an exchange with the agent."""
        cdef string name = <bytes?>command
        cdef shared_ptr[CppControlClient] client = self.opened()
        cdef shared_ptr[CppExchange] exchange
        with nogil:
            exchange = client.get().open(name)
        return Exchange.wrap(exchange)

    def pulse(self, interval_ms):
        """Ask every interval_ms whether the agent is there."""
        cdef shared_ptr[CppControlClient] client = self.opened()
        cdef unique_ptr[CppPulse] pulse = client.get().pulse(interval_ms)
        return Pulse.wrap(move(pulse))

    def close(self):
        """Dial no more; what was opened ends by itself. May be called again."""
        cdef shared_ptr[CppControlClient] client
        client.swap(self.client)
        with nogil:
            client.reset()

    def __dealloc__(self):
        with nogil:
            self.client.reset()


cdef class ClientPool:
    """The C++ Flight clients."""

    cdef unique_ptr[CppFlightClientPool] pool

    def __cinit__(self, **options):
        self.pool.reset(new CppFlightClientPool(client_config(options)))

    def read(self, ticket, deadline_ms):
        """The partitions that a ticket names; nothing is asked of the server before the stream is read."""
        return RemoteStream.wrap(self.pool.get().read(<bytes?>ticket, max(1, int(deadline_ms))))

    def __dealloc__(self):
        with nogil:
            self.pool.reset()


cdef class RemoteStream:
    """Partitions of an agent on another host: every consumer has them fetched anew."""

    cdef shared_ptr[CppRemoteRead] remote

    @staticmethod
    cdef RemoteStream wrap(shared_ptr[CppRemoteRead] remote):
        cdef RemoteStream result = RemoteStream.__new__(RemoteStream)
        result.remote = remote
        return result

    def __arrow_c_stream__(self, requested_schema=None):
        """An ArrowArrayStream capsule; raises the server's error, DeadlineExceeded, Cancelled, or SegmentLost."""
        cdef ArrowArrayStream* stream = <ArrowArrayStream*>malloc(sizeof(ArrowArrayStream))
        stream.release = NULL
        capsule = PyCapsule_New(stream, "arrow_array_stream", release_stream_capsule)
        with nogil:
            self.remote.get().open(stream)
        return capsule

    def cancel(self):
        """End this read, from any thread: its consumers get Cancelled.

        Only a call that still waits for the server's first word goes on, to its deadline.
        """
        with nogil:
            self.remote.get().cancel()

    def raise_error(self):
        """Raise the error that ended a stream, if one did: consumers report it as an error of their own."""
        rethrow_stream_error(self.remote.get().error())


cdef class JoinedStream:
    """Streams of equal columns, those of other hosts among them, one after the other as one."""

    cdef object schema
    cdef list parts
    cdef size_t ahead

    def __cinit__(self, schema, parts, *, ahead):
        self.schema = schema
        self.parts = list(parts)
        self.ahead = ahead

    @property
    def parts(self):
        """The streams that it was made of."""
        return tuple(self.parts)

    def __arrow_c_schema__(self):
        return self.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema=None):
        """The streams in their order; up to ``ahead`` of other hosts are fetched before they are read."""
        cdef vector[ReadPart] parts
        cdef ArrowArrayStream* stream = <ArrowArrayStream*>malloc(sizeof(ArrowArrayStream))
        stream.release = NULL
        result = PyCapsule_New(stream, "arrow_array_stream", release_stream_capsule)
        schema = self.schema.__arrow_c_schema__()
        try:
            for part in self.parts:
                if isinstance(part, RemoteStream):
                    add_remote(parts, (<RemoteStream>part).remote)
                else:
                    capsule = part.__arrow_c_stream__()
                    add_local(parts, <ArrowArrayStream*>PyCapsule_GetPointer(capsule, "arrow_array_stream"))
        except BaseException:
            release_parts(parts)
            raise
        open_joined(<ArrowSchema*>PyCapsule_GetPointer(schema, "arrow_schema"), parts, self.ahead, stream)
        return result

    def raise_error(self):
        """Raise the error that ended a part, if one did."""
        for part in self.parts:
            part.raise_error()

    def cancel(self):
        """End all fetches, from any thread."""
        for part in self.parts:
            if isinstance(part, RemoteStream):
                part.cancel()
