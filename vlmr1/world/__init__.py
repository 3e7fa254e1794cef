"""The embedded data: pictures drawn by the project and expressions about them, from a seed, no download.

`scenes` places and draws objects, `expressions` says something true of exactly one of them, `dataset` writes both
in public formats (COCO instances json, RefCOCO-style refs json), so that readers of real data read these too.
"""
