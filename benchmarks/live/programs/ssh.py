"""Paramiko and AsyncSSH, each with a server and a client in this process: wrapped loggers, prefixes, adapters."""

# needs: paramiko asyncssh
# mypy: ignore-errors
import asyncio
import contextlib
import logging
import socket
import threading

import asyncssh
import paramiko


class Server(paramiko.ServerInterface):
    def check_auth_password(self, username, password):
        return paramiko.AUTH_SUCCESSFUL if password == "right" else paramiko.AUTH_FAILED

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED if kind == "session" else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel, command):
        threading.Timer(0.02, lambda: (channel.send(command), channel.send_exit_status(0), channel.close())).start()
        return True

    def check_channel_subsystem_request(self, channel, name):
        return super().check_channel_subsystem_request(channel, name)


def with_paramiko() -> None:
    key = paramiko.ECDSAKey.generate()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            transport = paramiko.Transport(connection)
            transport.add_server_key(key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, paramiko.SFTPServerInterface)
            with contextlib.suppress(paramiko.SSHException, EOFError):
                transport.start_server(server=Server())

    threading.Thread(target=serve, daemon=True).start()
    for password in ("right", "wrong", "right", "right"):
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        with contextlib.suppress(paramiko.SSHException, EOFError):
            client.connect(
                "127.0.0.1", listener.getsockname()[1], "ann", password, look_for_keys=False, allow_agent=False
            )
            for n in range(4):
                client.exec_command(f"echo {n}")[1].read()
            with contextlib.suppress(paramiko.SSHException, OSError):
                client.get_transport().open_channel("forwarded-tcpip", ("a", 1), ("b", 2))
            with client.open_sftp() as sftp:
                for n in range(3):
                    with contextlib.suppress(OSError):
                        sftp.stat(f"/file/{n}")
        client.close()
    with contextlib.suppress(OSError), socket.create_connection(listener.getsockname()) as other:
        other.sendall(b"GET / HTTP/1.1\r\n\r\n")
        other.recv(100)


async def with_asyncssh() -> None:
    class Server(asyncssh.SSHServer):
        def password_auth_supported(self):
            return True

        def validate_password(self, username, password):
            return password == "right"

    async def process(handle):
        handle.stdout.write(handle.command or "none")
        handle.exit(len(handle.command or "") % 2)

    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=Server, server_host_keys=[key], process_factory=process, sftp_factory=True
    )
    port = server.sockets[0].getsockname()[1]
    asyncssh.set_debug_level(2)
    for password in ("right", "wrong", "right", "right"):
        with contextlib.suppress(asyncssh.Error, OSError):
            async with asyncssh.connect(
                "127.0.0.1", port, username="ann", password=password, known_hosts=None, client_keys=None, config=None
            ) as connection:
                for n in range(5):
                    await connection.run(f"echo {'x' * n}")
                async with connection.start_sftp_client() as sftp:
                    for n in range(3):
                        with contextlib.suppress(asyncssh.SFTPError):
                            await sftp.stat(f"/absent/{n}")
                    await sftp.listdir(".")
                with contextlib.suppress(asyncssh.Error):
                    await connection.open_connection("127.0.0.1", 1)
    server.close()


if __name__ == "__main__":
    logging.getLogger("asyncssh").setLevel(logging.DEBUG)
    with_paramiko()
    asyncio.run(with_asyncssh())
