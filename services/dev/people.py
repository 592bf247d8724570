"""Who lives in the demo: two users of posta.test, and one of another platform's domain."""

from typing import Final

DOMAIN: Final = "posta.test"
FAR: Final = "remote.test"
ALICE: Final = f"alice@{DOMAIN}"
BOB: Final = f"bob@{DOMAIN}"
CAROL: Final = f"carol@{FAR}"
PASSWORD: Final = "posta-demo"
