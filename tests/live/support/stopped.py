"""A handler that stops the engine of its own process."""

# A signal handler that never returns, in the engine's thread alone. Lines of a method's body.
STOPS_THE_ENGINE = """
        import ctypes, signal
        libc = ctypes.CDLL(None)
        libc.signal(signal.SIGURG, ctypes.cast(libc.pause, ctypes.c_void_p))
        for thread in Path("/proc/self/task").iterdir():
            if (thread / "comm").read_text() == "nats-consumer\\n":
                libc.tgkill(os.getpid(), int(thread.name), signal.SIGURG)
        time.sleep(600)
"""
