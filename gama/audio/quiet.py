"""placeholder"""

from contextlib import contextmanager


@contextmanager
def quiet_mpg123(kind):
    yield
