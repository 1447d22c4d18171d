"""An invalid setting of a component."""


class SettingError(ValueError):
    """A setting with which a component must not start: a guarantee would silently not hold."""
