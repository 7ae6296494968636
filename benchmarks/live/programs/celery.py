"""A Celery worker in this process with an in-memory broker: success, failure, retries, ETA, unknown tasks, revoking."""

# needs: celery
# mypy: ignore-errors
import logging
import threading
import time

from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.utils.log import get_task_logger

app = Celery("shop", broker="memory://", backend="cache+memory://")
app.conf.update(
    worker_hijack_root_logger=False,
    worker_pool="solo",
    task_acks_late=True,
    broker_connection_retry_on_startup=True,
    beat_schedule={"every": {"task": "shop.add", "schedule": 0.2, "args": (1, 2)}},
    worker_redirect_stdouts=False,
)
log = get_task_logger("shop.tasks")


@app.task(name="shop.add")
def add(a, b):
    log.info("Adding %s and %s", a, b)
    return a + b


@app.task(name="shop.fail")
def fail(number):
    log.warning(f"About to fail for {number}")
    raise ValueError(f"failed {number}")


@app.task(name="shop.again", bind=True, max_retries=2, default_retry_delay=0)
def again(self, number):
    log.info("Attempt " + str(self.request.retries) + " of " + str(number))
    raise self.retry(exc=KeyError(number))


@app.task(name="shop.ignore", bind=True)
def ignore(self):
    from celery.exceptions import Ignore, Reject

    if self.request.delivery_info:
        raise Ignore
    raise Reject("no", requeue=False)


@app.task(name="shop.slow", soft_time_limit=1)
def slow():
    time.sleep(0.01)


def main() -> None:
    logging.getLogger("amqp").setLevel(logging.DEBUG)
    with start_worker(app, perform_ping_check=False, pool="solo", loglevel="DEBUG", shutdown_timeout=30):
        for number in range(60):
            add.delay(number, 1)
            if number % 3 == 0:
                fail.delay(number)
            if number % 6 == 0:
                again.delay(number)
                ignore.delay()
                add.apply_async((number, 2), countdown=0.2)
                app.send_task("shop.unknown", (number,))
        slow.delay()
        victim = add.apply_async((1, 1), countdown=1)
        victim.revoke()
        add.apply_async((1, 1), expires=-1)
        app.control.ping(timeout=0.2)
        app.control.inspect(timeout=0.2).stats()
        app.control.rate_limit("shop.add", "1000/s")
        beat = app.Beat(loglevel="DEBUG", schedule=None, quiet=True)
        service = __import__("celery.beat", fromlist=["Service"]).Service(app, scheduler_cls="celery.beat:Scheduler")
        thread = threading.Thread(target=service.start, daemon=True)
        thread.start()
        del beat
        time.sleep(4)
        service.stop()
        time.sleep(1)


if __name__ == "__main__":
    main()
