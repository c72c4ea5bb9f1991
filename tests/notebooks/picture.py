"""The picture of a cell in docs/notebook.md: ``python -m tests.notebooks.picture`` takes it anew, from a real run.

It needs Chromium, and generates TPC-H at scale factor 1.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.notebooks.lab import Lab, running_browser, running_server

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "notebook.png"
# The planner is loaded, and agents have started, before the query in the picture.
WARM_UP = """%load_ext sabot_sql
%config SabotMagic.agents = 4
since = '1995-01-01'
first = %sabot SELECT p_brand, count(*) FROM 'part.parquet' GROUP BY p_brand"""
CELL = """%%sabot -n 4
SELECT c_mktsegment AS segment, o_orderkey, sum(l_extendedprice) AS price
FROM 'lineitem.parquet' JOIN 'orders.parquet' ON l_orderkey = o_orderkey
     JOIN 'customer.parquet' ON o_custkey = c_custkey
WHERE o_orderdate >= $since
GROUP BY ALL ORDER BY price DESC"""


def main(picture: Path = PICTURE, *, dark: bool = False) -> None:
    """Take the picture."""
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder)) as server, running_browser() as browser:
        subprocess.run(["tpchgen-cli", "parquet", "-s", "1", "--output-dir", str(server.folder)], check=True)
        lab = Lab(browser.new_page(viewport={"width": 1500, "height": 1200}), server)
        lab.open(server.write("picture", [WARM_UP, CELL]))
        lab.page.evaluate("window.jupyterapp.shell.collapseLeft()")
        for place in range(2):
            lab.run(place)
        lab.theme(dark=dark)
        lab.page.mouse.move(0, 0)
        lab.cell(0).click()  # so that the tools of the cell in the picture go
        lab.cell(1).screenshot(path=picture)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]), dark="--dark" in sys.argv)
