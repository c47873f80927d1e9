import os
import signal

import pytest

from launch.running.signals import sigterm_interrupts


def test_sigterm_interrupts_inside_the_block_and_is_as_before_after_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), sigterm_interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
