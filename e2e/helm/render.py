"""Renders the chart: render.py CHART VALUES, with Helm's own library. The manifests go to stdout."""
import json
import sys

import helm_python as helm

with open(sys.argv[2], encoding="utf-8") as f:
    values = json.load(f)
with helm.Chart.load(sys.argv[1]) as chart:
    try:
        rendered = chart.render(values, name="curfew", namespace="curfew")
    except Exception as e:
        sys.exit(f"{type(e).__name__}: {e}")
for name, text in sorted(rendered.items()):
    if name.endswith(".yaml") and text.strip():
        print("---\n# " + name + "\n" + text.strip())
