"""DKIM keys (RFC 6376, 8301, 8463): what they are made of, how the DNS shows them, how they follow one another.

A key is `published` until the DNS shows its record, then `active`: mail is signed with it. The pair that follows makes
it `retired`: nothing is signed with it any more, and its record stays for mail that is still on its way. Each pair is
one RSA-2048 and one Ed25519 key, each under a selector of its own.
"""
