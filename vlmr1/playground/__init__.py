"""The playground: a local page to ask checkpoints on and to look through a training's rollouts.

Starlette and a hand-written page, which comes with the package and needs nothing from any other address. What is shown
is read by the tasks' own parser and judged by their own rewards, as in training.
"""
