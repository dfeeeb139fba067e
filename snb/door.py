"""The API-key check, made before anything else of a request is read."""

import hmac

from cog import Secret

from snb.errors import Unauthorized


class Door:
    """Checks the API key that callers send; where the operator has set none, everybody may ask."""

    def __init__(self, key: str | None) -> None:
        self._key = key.encode() if key else None

    def admit(self, given: Secret | str) -> None:
        """Returns if the caller may ask.

        Args:
            given: the input `api_key`; a plain text where the caller left it out, since coglet 0.23.1
                makes a Secret only of what was sent.

        Raises:
            Unauthorized: the key is wrong or missing; the error says which, and repeats no key.
        """
        if self._key is None:
            return
        sent = str(given.get_secret_value() if isinstance(given, Secret) else given)
        # In constant time, so that timing does not reveal how much of a key is right. JSON can hold half of a
        # surrogate pair, which strict encoding would refuse.
        if not hmac.compare_digest(sent.encode(errors="surrogatepass"), self._key):
            fault = "api_key is not the key of this endpoint" if sent else "api_key is missing"
            raise Unauthorized(fault, "Send the endpoint's SNB_API_KEY as the input api_key")
