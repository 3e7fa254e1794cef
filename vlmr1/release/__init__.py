"""Releases: a checkpoint that leaves the project, with a card for people and a manifest for machines.

A store holds NAME/VERSION/{files…, manifest.json}. The version is the hash of what is released, the manifest comes
last, and a version that has one never changes.
"""
