"""The embedded data: pictures drawn by the project from a seed, with questions that have exact answers, no download.

A world is a module: `rec` (scenes, expressions), `ovd` (scenes), `math` (charts, geometry, problems), `gui` (screens).
Each writes a public format, so that readers of real data read these too; `dataset` writes those that params ask for.
What is drawn is Pillow's work, its font included (Aileron, CC0).
"""
