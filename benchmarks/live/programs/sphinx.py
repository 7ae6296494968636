"""Sphinx builds a small book with mistakes in it: adapters, translated messages, warnings with places."""

# needs: sphinx
# mypy: ignore-errors
import contextlib
import io
import logging
from pathlib import Path

from sphinx.application import Sphinx


def main() -> None:
    source = Path("book")
    source.mkdir()
    (source / "conf.py").write_text(
        "project = 'book'\nextensions = ['sphinx.ext.autodoc', 'sphinx.ext.todo', 'sphinx.ext.intersphinx',"
        " 'sphinx.ext.viewcode']\nhtml_theme = 'alabaster'\nunknown = object()\nhtml_static_path = ['absent']\n"
    )
    names = [f"chapter{n}" for n in range(12)]
    (source / "index.rst").write_text(
        "Book\n====\n\n.. toctree::\n\n   absent\n" + "".join(f"   {name}\n" for name in names)
    )
    for n, name in enumerate(names):
        (source / f"{name}.rst").write_text(
            f".. _here:\n\nChapter {n}\n=========\n\n:ref:`nowhere{n}` :doc:`lost{n}` `{n} <{n}>`_ |gone{n}|\n\n"
            f".. automodule:: no.such.module{n}\n.. autoclass:: json.JSONDecoder\n.. image:: missing{n}.png\n"
            f".. code-block:: nolanguage{n}\n\n   x\n\n.. todo:: this\n\n.. unknown{n}:: x\n\n.. [#n{n}] note\n\n"
            f".. literalinclude:: none{n}.py\n\n.. py:function:: same()\n\n"
            f".. glossary::\n\n   term\n     Text\n\n:numref:`x{n}`"
        )
    (source / "orphan.rst").write_text("Orphan\n---\n\nShort\n")
    for builder in ("html", "text", "latex"):
        with contextlib.redirect_stdout(io.StringIO()):
            app = Sphinx(
                source,
                source,
                Path(f"out-{builder}").absolute(),
                "trees",
                builder,
                status=io.StringIO(),
                warning=io.StringIO(),
                verbosity=2,
            )
            logging.getLogger("sphinx").setLevel(logging.DEBUG)
            app.build(force_all=True)
    (source / "chapter1.rst").write_text("Chapter\n=======\n")
    app.build()


if __name__ == "__main__":
    main()
