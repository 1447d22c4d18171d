"""The policy for passwords of log-ins: a length, as NIST advises, no kinds of characters.

https://pages.nist.gov/800-63-4/sp800-63b.html#passwordver
"""

from __future__ import annotations

MIN_LENGTH = 12


def validate(password: str) -> None:
    """Refuse a password that is too short, in FAB's forms.

    Raises:
        PasswordComplexityValidationError: Its text is shown beside the field.
    """
    from flask_appbuilder.exceptions import PasswordComplexityValidationError

    if len(password) < MIN_LENGTH:
        raise PasswordComplexityValidationError(f"A password has at least {MIN_LENGTH} characters.")
