"""The program of an agent process: ``python -m sabot_sql.agent.process_main DESCRIPTOR DESCRIPTOR``.

It talks frames over the inherited socket and ends when the other end of that socket is gone.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import Any

import sabot_native
from sabot_sql.agent.agent_instance import AgentInstance, InstanceConfig
from sabot_sql.agent.command_handler import CommandHandler
from sabot_sql.agent.thread_agent import ThreadAgent
from sabot_sql.protocol.codec import decode
from sabot_sql.protocol.wire import PROTOCOL_VERSION, Frame, receive_frame, send_frame


class _Server:
    def __init__(self, connection: socket.socket, config: InstanceConfig) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self.manager = sabot_native.ShuffleManager(
            config.agent_id, budget_bytes=config.shuffle_bytes, spill_directory=config.spill_directory
        )
        self._instance = instance = AgentInstance(config, self.manager)
        instance.warm_up()
        agent = ThreadAgent(config.agent_id, lambda context, _: instance.runner(context), self.manager)
        self._commands = CommandHandler(agent, self._send)

    def serve(self) -> None:
        hello = {"version": PROTOCOL_VERSION, "pid": os.getpid()}
        self._send(Frame("hello", hello, [], (self.manager.arena_fd(),)))
        while (frame := receive_frame(self._connection)) is not None:
            self._handle(frame)

    def _handle(self, frame: Frame) -> None:
        match frame.kind:
            case "peers":
                self._attach(frame.body, frame.descriptors)
            case "detach":
                self.manager.detach_peer(str(frame.body))
            case "rest":
                # Sent between queries only: the agent's thread, which has the instance, waits for work.
                self._instance.close()
                self.manager.trim()
            case "ping":
                self._send(Frame("pong"))
            case _:
                self._commands.handle(frame)

    def _attach(self, peers: list[Any], descriptors: tuple[int, ...]) -> None:
        for (agent_id, spill_directory), descriptor in zip(peers, descriptors, strict=True):
            self.manager.attach_peer(agent_id, descriptor, spill_directory)
            os.close(descriptor)

    def _send(self, frame: Frame) -> None:
        with self._sending:
            send_frame(self._connection, frame)


def main() -> int:
    """Serve one session until it is gone."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    # Answers for as long as this process is scheduled, whatever holds Python's lock.
    heartbeat = sabot_native.Heartbeat(int(sys.argv[2]), 0)
    first = receive_frame(connection)
    if first is None or first.kind != "configure":
        return 2
    server = _Server(connection, decode(InstanceConfig, first.body, first.blobs))
    try:
        server.serve()
    except OSError:
        return 0  # the session is gone
    finally:
        heartbeat.stop()
    return 0


if __name__ == "__main__":
    status = main()
    # Threads of DuckDB may be inside a query that nobody waits for; the session removes the directories.
    os._exit(status)
