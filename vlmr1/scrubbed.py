"""What may be repeated of a text that somebody else wrote: the whole, but for what URLs say to a server alone.

A URL's user and password, and the values of its query, are often secrets; a message that quotes it is read by many.
Left out on purpose: knowing every secret. What is published is searched for more (`vlmr1.release.secrets`).
"""

from __future__ import annotations

import re

HIDDEN = "***"
_URL = re.compile(r"\b[a-z][a-z0-9+.-]+:/{1,2}[^\s\"'<>`]+", re.IGNORECASE)  # one slash: paths lose the other
_USER = re.compile(r":(/+).*@")  # up to the last @: a password may hold what it should not
_VALUE = re.compile(r"(?<==)[^&;#]+")


def scrubbed(text: str) -> str:
    """The text with *** for the user, the password and the query's values of every URL in it."""
    return _URL.sub(_of_url, text)


def _of_url(found: re.Match[str]) -> str:
    address, mark, query = _USER.sub(rf":\1{HIDDEN}@", found[0]).partition("?")
    return address + mark + _VALUE.sub(HIDDEN, query)
