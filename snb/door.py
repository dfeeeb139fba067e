"""Nobody in without the key, where the operator has set one; before anything of a request is read."""

import hmac

from cog import Secret

from snb.errors import Unauthorized


class Door:
    """Compares what callers send with the key of this endpoint; without a key it lets everybody in."""

    def __init__(self, key: str | None) -> None:
        self._key = key.encode() if key else None

    def admit(self, given: Secret | str) -> None:
        """Returns if the caller may ask.

        Args:
            given: the input `api_key`; a plain text where the caller left it out, for coglet 0.23.1
                makes a Secret only of what was sent.

        Raises:
            Unauthorized: another key, or none; the error tells the two apart and repeats neither.
        """
        if self._key is None:
            return
        sent = str(given.get_secret_value() if isinstance(given, Secret) else given)
        # In constant time, so that answers do not tell how much of a key was right. JSON can carry half of a
        # surrogate pair, which strict encoding would choke on.
        if not hmac.compare_digest(sent.encode(errors="surrogatepass"), self._key):
            fault = "api_key is not the key of this endpoint" if sent else "api_key is missing"
            raise Unauthorized(fault, "Send the endpoint's SNB_API_KEY as the input api_key")
