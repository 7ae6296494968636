"""Scrapy crawls a local site: errors, redirects, robots.txt, duplicates, a pipeline that drops and fails."""

# needs: scrapy
# mypy: ignore-errors
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import scrapy
from scrapy.crawler import CrawlerProcess
from scrapy.exceptions import DropItem


class Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, headers, kind = 200, {}, "text/html"
        number = int("0" + "".join(filter(str.isdigit, self.path)))
        body = "".join(f'<a href="/page/{n}">n</a>' for n in range(number + 1, min(number + 6, 60)))
        if self.path == "/robots.txt":
            body, kind = "User-agent: *\nDisallow: /secret\n", "text/plain"
        elif self.path == "/":
            body += "".join(
                f'<a href="/{name}/{n}">x</a>'
                for name in ("moved", "missing", "broken", "secret", "loop", "big", "binary", "refresh", "cut")
                for n in range(6)
            )
            body += '<a href="http://127.0.0.1:1/">down</a><a href="http://elsewhere.invalid/">away</a>'
        elif self.path.startswith("/moved"):
            status, headers["Location"] = 301, f"/page/{number}"
        elif self.path.startswith("/loop"):
            status, headers["Location"] = 302, self.path
        elif self.path.startswith("/missing"):
            status = 404
        elif self.path.startswith("/broken"):
            status = 500
        elif self.path.startswith("/big"):
            body = "x" * 50_000
        elif self.path.startswith("/binary"):
            body, kind = "\0\1\2", "application/octet-stream"
        elif self.path.startswith("/refresh"):
            body = f'<meta http-equiv="refresh" content="0; url=/page/{number}">'
        elif self.path.startswith("/cut"):
            headers["Content-Length"] = "1000"
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class Pipeline:
    def process_item(self, item):
        if item["n"] % 7 == 0:
            raise DropItem(f"Unwanted: {item['n']}")
        if item["n"] % 11 == 0:
            raise ValueError(f"Bad item {item['n']}")
        return item


class Spider(scrapy.Spider):
    name = "local"
    allowed_domains = ("127.0.0.1",)

    async def start(self):
        yield scrapy.Request(f"{self.base}/")

    def parse(self, response):
        self.logger.info("Parsing %s", response.url)
        number = int("0" + "".join(filter(str.isdigit, response.url.rpartition("/")[2])))
        if number % 13 == 5:
            raise RuntimeError(f"cannot parse {number}")
        if number % 5 == 1:
            yield "not an item"
        yield {"n": number, "url": response.url}
        for link in response.css("a::attr(href)").getall() if b"\0" not in response.body else ():
            yield response.follow(link, meta={"dont_merge": number})
        yield scrapy.Request(
            response.url,
            errback=self.failed,
            dont_filter=number % 9 == 1 and "again" not in response.meta,
            meta={"again": True},
        )

    def failed(self, failure):
        self.logger.error(repr(failure))


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    process = CrawlerProcess(
        {
            "LOG_LEVEL": "DEBUG",
            "LOG_ENABLED": False,
            "ROBOTSTXT_OBEY": True,
            "RETRY_TIMES": 1,
            "REDIRECT_MAX_TIMES": 3,
            "DUPEFILTER_DEBUG": True,
            "COOKIES_DEBUG": True,
            "DOWNLOAD_MAXSIZE": 40_000,
            "DOWNLOAD_WARNSIZE": 10_000,
            "TELNETCONSOLE_ENABLED": False,
            "LOGSTATS_INTERVAL": 0.5,
            "AUTOTHROTTLE_ENABLED": True,
            "AUTOTHROTTLE_DEBUG": True,
            "AUTOTHROTTLE_START_DELAY": 0,
            "HTTPCACHE_ENABLED": True,
            "FEEDS": {"out.json": {"format": "json"}},
            "ITEM_PIPELINES": {Pipeline: 1},
            "DEPTH_LIMIT": 8,
        }
    )
    process.crawl(Spider, base=f"http://127.0.0.1:{server.server_port}")
    process.start()


if __name__ == "__main__":
    main()
