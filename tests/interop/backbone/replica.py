"""A server at a backbone."""

from server import Server


class Replica(Server):
    """Which a test may kill."""

    is_killed = False

    def kill(self):
        self.is_killed = True
        self.close_clients()
        self.process.kill()
        self.wait()
