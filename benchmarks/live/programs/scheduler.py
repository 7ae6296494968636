"""APScheduler with jobs that succeed, fail, miss and pile up; websockets; PyMongo and kafka-python without a broker."""

# needs: apscheduler websockets pymongo kafka-python
# mypy: ignore-errors
import asyncio
import contextlib
import logging
import time
from datetime import datetime, timedelta

import pymongo
import websockets
from apscheduler.schedulers.background import BackgroundScheduler
from kafka import KafkaProducer


def work(n):
    if n % 3 == 0:
        raise ValueError(n)


def sleep():
    time.sleep(0.5)


def schedule() -> None:
    scheduler = BackgroundScheduler()
    for n in range(8):
        scheduler.add_job(work, "interval", seconds=0.2, args=[n], id=f"work {n}", name=f"work {n}")
    scheduler.add_job(sleep, "interval", seconds=0.1, max_instances=1)
    scheduler.add_job(work, "date", run_date=datetime.now() - timedelta(seconds=10), args=[1], misfire_grace_time=1)
    scheduler.start()
    scheduler.pause_job("work 1")
    scheduler.resume_job("work 1")
    scheduler.modify_job("work 2", name="renamed")
    time.sleep(1.5)
    scheduler.remove_job("work 4")
    scheduler.pause()
    scheduler.resume()
    scheduler.shutdown()


async def sockets() -> None:
    async def echo(connection):
        async for message in connection:
            if message == "7":
                raise ValueError(message)
            await connection.send(message)

    async with websockets.serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for _ in range(4):
            with contextlib.suppress(websockets.WebSocketException):
                async with websockets.connect(f"ws://127.0.0.1:{port}/") as client:
                    for n in range(9):
                        await client.send(str(n))
                        await client.recv()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.read()
        writer.close()


def brokers() -> None:
    client = pymongo.MongoClient("mongodb://127.0.0.1:1", serverSelectionTimeoutMS=700, heartbeatFrequencyMS=500)
    for _ in range(2):
        with contextlib.suppress(Exception):
            client.shop.items.find_one({"n": 1})
    client.close()
    with contextlib.suppress(Exception):
        producer = KafkaProducer(bootstrap_servers="127.0.0.1:1", max_block_ms=800)
        producer.send("topic", b"x")


if __name__ == "__main__":
    logging.getLogger("apscheduler").setLevel(logging.DEBUG)
    schedule()
    asyncio.run(sockets())
    brokers()
