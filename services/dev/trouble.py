"""What a person at the terminal can mend."""


class Trouble(Exception):
    """One clear line for stderr; the verb ends with `exit_code`."""

    def __init__(self, line: str, exit_code: int = 1) -> None:
        super().__init__(line)
        self.exit_code = exit_code
