"""The error of an invalid setting."""


class SettingError(ValueError):
    """A setting is invalid. The component must not start: a guarantee would silently not hold."""
