"""boto3 and botocore in DEBUG against a local endpoint that succeeds, throttles and fails."""

# needs: boto3
# mypy: ignore-errors
# ruff: noqa: PLW0108, B023
import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError


class Endpoint(BaseHTTPRequestHandler):
    count = 0

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        Endpoint.count += 1
        status, body = 200, b"<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>"
        if Endpoint.count % 7 == 3:
            status, body = 503, b"<Error><Code>SlowDown</Code><Message>slow</Message></Error>"
        elif "absent" in self.path:
            status, body = 404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    known = {
        "endpoint_url": f"http://127.0.0.1:{server.server_port}",
        "region_name": "us-east-1",
        "aws_access_key_id": "id",
        "aws_secret_access_key": "key",
    }
    config = Config(retries={"max_attempts": 3, "mode": "standard"}, connect_timeout=1, read_timeout=2)
    s3 = boto3.client("s3", config=config, **known)
    for n in range(6):
        for call in (
            lambda: s3.list_buckets(),
            lambda: s3.put_object(Bucket="shop", Key=f"a/{n}", Body=b"x" * n),
            lambda: s3.get_object(Bucket="shop", Key=f"absent/{n}"),
        ):
            with contextlib.suppress(ClientError, BotoCoreError):
                call()
    sqs = boto3.client("sqs", config=Config(retries={"max_attempts": 2, "mode": "legacy"}), **known)
    for n in range(3):
        with contextlib.suppress(ClientError, BotoCoreError):
            sqs.send_message(QueueUrl=f"{known['endpoint_url']}/q", MessageBody=str(n))
    table = boto3.resource("dynamodb", config=config, **known).Table("t")
    with contextlib.suppress(ClientError, BotoCoreError):
        table.get_item(Key={"k": "v"})
    dead = boto3.client(
        "s3",
        config=Config(retries={"max_attempts": 2, "mode": "adaptive"}),
        **{**known, "endpoint_url": "http://127.0.0.1:1"},
    )
    with contextlib.suppress(ClientError, BotoCoreError):
        dead.list_buckets()


if __name__ == "__main__":
    main()
