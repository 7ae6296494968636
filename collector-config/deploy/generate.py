"""Write what of the manifests is a copy: `uv run python collector-config/deploy/generate.py`.

The ConfigMaps carry sidecar.yaml and gateway.yaml, so that `kubectl apply` needs nothing else. A test compares the
files with what this would write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
FILES: Final = {"config.yaml": "sidecar", "gateway-config.yaml": "gateway"}
"""Of each manifest, which configuration it carries."""

_HEAD: Final = """\
# A copy of collector-config/{name}.yaml, made by deploy/generate.py. Or, from that file:
#
#   kubectl create configmap weir-{name} --from-file={name}.yaml
apiVersion: v1
kind: ConfigMap
metadata:
  name: weir-{name}
data:
  {name}.yaml: |
"""


def config_map(name: str) -> str:
    """The manifest that carries a configuration as it is."""
    text = (HERE.parent / f"{name}.yaml").read_text(encoding="utf-8")
    return _HEAD.format(name=name) + "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines())


if __name__ == "__main__":
    for file, name in FILES.items():
        (HERE / "kubernetes" / file).write_text(config_map(name), encoding="utf-8")
