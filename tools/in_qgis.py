"""What `make qgis` runs inside QGIS, with the system's Python: draws the layers that FOLDER/jobs.json names, and notes how.

A plain job shows grey levels, rasters by their values and polygons by their column "score": what lies where can be counted.
"""
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsApplication,
    QgsFillSymbol,
    QgsMapLayer,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsProperty,
    QgsRasterLayer,
    QgsRectangle,
    QgsSingleBandGrayRenderer,
    QgsSingleSymbolRenderer,
    QgsSymbolLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor


def open_layer(source: str, plain: bool) -> QgsMapLayer:
    """A layer as QGIS opens it, with the style that it finds; a plain one is grey by its numbers."""
    is_raster = source.endswith(".tif")
    layer = QgsRasterLayer(source, source) if is_raster else QgsVectorLayer(source, source, "ogr")
    if not layer.isValid():
        raise SystemExit(f"QGIS cannot open {source}")
    if plain and is_raster:
        layer.setRenderer(QgsSingleBandGrayRenderer(layer.dataProvider(), 1))
    elif plain:
        symbol = QgsFillSymbol.createSimple({"outline_style": "no"})
        grey = QgsProperty.fromExpression('color_rgb("score", "score", "score")')
        symbol.symbolLayer(0).setDataDefinedProperty(QgsSymbolLayer.PropertyFillColor, grey)
        layer.setRenderer(QgsSingleSymbolRenderer(symbol))
    return layer


def draw(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Draw a job's layers, the first on top, into its PNG; returns where the picture lies and how QGIS shows each layer."""
    layers = [open_layer(str(folder / name), job["plain"]) for name in job["layers"]]
    settings = QgsMapSettings()
    settings.setLayers(layers)
    settings.setDestinationCrs(layers[0].crs())
    settings.setBackgroundColor(QColor("white"))
    settings.setFlag(QgsMapSettings.Antialiasing, not job["plain"])
    settings.setOutputSize(QSize(*job["size"]))
    settings.setExtent(QgsRectangle(*job["extent"]))
    rendering = QgsMapRendererSequentialJob(settings)
    rendering.start()
    rendering.waitForFinished()
    rendering.renderedImage().save(str(folder / job["picture"]))
    seen = settings.visibleExtent()
    return {"extent": [seen.xMinimum(), seen.yMinimum(), seen.xMaximum(), seen.yMaximum()],
            "renderers": [layer.renderer().type() for layer in layers]}


if __name__ == "__main__":
    home = Path(sys.argv[1])
    application = QgsApplication([], False)
    application.initQgis()
    found = [draw(home, job) for job in json.loads((home / "jobs.json").read_text())]
    (home / "found.json").write_text(json.dumps(found))
    application.exitQgis()
