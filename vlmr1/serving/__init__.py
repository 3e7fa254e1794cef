"""Serving: a client for OpenAI-compatible servers, the commands that start such servers, and their benchmark.

Servers live in environments of their own and are spoken to over HTTP alone: vLLM and Prefect cannot share one.
"""
