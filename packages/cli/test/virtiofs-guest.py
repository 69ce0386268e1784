"""Stands in for a virtual machine: speaks vhost-user and virtiofs on a socket, well and badly.

usage: virtiofs-guest.py SOCKET well NAME FILE | SOCKET look NAME FILE OTHER | SOCKET badly
"""
import os, random, select, socket, struct, sys

MEMORY = 1 << 22
USER = 0x7F0000000000  # where the memory is in the process of the virtual machine
DESCRIPTORS, AVAILABLE, USED, TABLE, INPUT, OUTPUT = 0, 0x1000, 0x2000, 0x4000, 0x10000, 0x100000
ENTRIES = 64
NEXT, WRITE, INDIRECT = 1, 2, 4


class Guest:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(path)
        self.memory = os.memfd_create("guest")
        os.ftruncate(self.memory, MEMORY)
        self.kick, self.call = os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0)
        self.taken = self.made = self.unique = 0

    def send(self, request, payload=b"", fds=(), flags=1, size=None):
        header = struct.pack("<III", request, flags, len(payload) if size is None else size)
        socket.send_fds(self.socket, [header + payload], fds)

    def receive(self):
        header = self.socket.recv(12, socket.MSG_WAITALL)
        return self.socket.recv(struct.unpack("<III", header)[2], socket.MSG_WAITALL) if header else None

    def start(self, queue=1):
        self.send(1)
        assert struct.unpack("<Q", self.receive())[0] & (1 << 32)
        self.send(2, struct.pack("<Q", 1 << 32 | 1 << 30 | 1 << 28))
        # A file comes as the first descriptor, unlike from QEMU.
        self.send(5, struct.pack("<II4Q", 1, 0, 0, MEMORY, USER, 0), [self.memory], flags=9)
        assert struct.unpack("<Q", self.receive())[0] == 0
        self.send(8, struct.pack("<II", queue, ENTRIES))
        self.send(9, struct.pack("<IIQQQQ", queue, 0, USER + DESCRIPTORS, USER + USED, USER + AVAILABLE, 0))
        self.send(10, struct.pack("<II", queue, 0))
        self.send(13, struct.pack("<Q", queue), [self.call])
        self.send(12, struct.pack("<Q", queue), [self.kick])
        self.send(18, struct.pack("<II", queue, 1))
        self.send(3, flags=9)
        self.receive()

    def describe(self, at, descriptors):
        for i, one in enumerate(descriptors):
            os.pwrite(self.memory, struct.pack("<QIHH", *one), at + 16 * i)

    def offer(self, count=1):
        os.pwrite(self.memory, struct.pack("<H", 0), AVAILABLE + 4 + 2 * (self.made % ENTRIES))
        self.made += count
        os.pwrite(self.memory, struct.pack("<H", self.made & 0xFFFF), AVAILABLE + 2)
        os.eventfd_write(self.kick, 1)

    def ask(self, opcode, nodeid=0, body=b"", room=0x20000):
        """Sends a request of the FUSE protocol, and returns errno and the answer."""
        self.unique += 1
        message = struct.pack("<IIQQIIII", 40 + len(body), opcode, self.unique, nodeid, 0, 0, 0, 0) + body
        os.pwrite(self.memory, message, INPUT)
        chain = [(INPUT, 40, NEXT, 1), (INPUT + 40, len(message) - 40, NEXT, 2)] if body else [(INPUT, 40, NEXT, 1)]
        chain += [(OUTPUT, 16, WRITE | NEXT, len(chain) + 1), (OUTPUT + 0x1000, room, WRITE, 0)]
        if self.unique % 2:  # by a table outside of the queue
            self.describe(TABLE, chain)
            self.describe(DESCRIPTORS, [(TABLE, 16 * len(chain), INDIRECT, 0)])
        else:
            self.describe(DESCRIPTORS, chain)
        self.offer()
        ready, _, _ = select.select([self.call, self.socket], [], [], 20)
        if self.call not in ready:
            raise ConnectionError("no answer")
        os.eventfd_read(self.call)
        self.taken += 1
        assert struct.unpack("<H", os.pread(self.memory, 2, USED + 2))[0] == self.taken & 0xFFFF
        _, written = struct.unpack("<II", os.pread(self.memory, 8, USED + 4 + 8 * ((self.taken - 1) % ENTRIES)))
        length, error, unique = struct.unpack("<IiQ", os.pread(self.memory, 16, OUTPUT))
        assert (length, unique) == (written, self.unique), (length, written, unique)
        return -error, os.pread(self.memory, length - 16, OUTPUT + 0x1000)

    def init(self):
        assert self.ask(26, body=struct.pack("<IIII", 7, 38, 1 << 17, 0))[0] == 0

    def lookup(self, parent, name):
        error, body = self.ask(1, parent, name + b"\0")
        return 0 if error else struct.unpack("<Q", body[:8])[0]

    def end(self):
        self.socket.close()
        for fd in (self.memory, self.kick, self.call):
            os.close(fd)


def well(path, name, file):
    guest = Guest(path)
    guest.start()
    guest.init()
    node = guest.lookup(guest.lookup(1, name.encode()), file.encode())
    at = 0
    while True:
        error, body = guest.ask(15, node, struct.pack("<QQIIQII", 0, at, 0x10000, 0, 0, 0, 0))
        assert error == 0, error
        if not body:
            break
        sys.stdout.buffer.write(body)
        at += len(body)
    assert guest.ask(15, node, struct.pack("<QQIIQII", 0, 0, 0x10000, 0, 0, 0, 0), room=100)[0] == 5
    guest.end()


def look(path, name, file, other):
    """Prints the names in the root, those of the extended attributes of a file, and whether another name is found."""
    guest = Guest(path)
    guest.start()
    guest.init()
    error, opened = guest.ask(27, 1, bytes(8))
    assert error == 0, error
    handle = struct.unpack("<Q", opened[:8])[0]
    error, body = guest.ask(28, 1, struct.pack("<QQIIQII", handle, 0, 4096, 0, 0, 0, 0))
    assert error == 0, error
    while body:
        length = struct.unpack("<I", body[16:20])[0]
        print(body[24 : 24 + length].decode())
        body = body[24 + (length + 7) // 8 * 8 :]
    node = guest.lookup(guest.lookup(1, name.encode()), file.encode())
    error, body = guest.ask(23, node, struct.pack("<II", 4096, 0))
    assert error == 0, error
    print(body.rstrip(b"\0").replace(b"\0", b" ").decode())
    guest.ask(15, node, struct.pack("<QQIIQII", 0, 0, 0x10000, 0, 0, 0, 0))
    print("found" if guest.lookup(1, other.encode()) else "absent")
    guest.end()


def badly(path):
    def chain(*descriptors, count=1):
        def act(guest):
            guest.start()
            guest.init()
            guest.describe(DESCRIPTORS, descriptors)
            guest.offer(count)
        return act

    def message(*args, **options):
        return lambda guest: guest.send(*args, **options)

    def noise(guest):
        guest.start()
        for _ in range(300):
            os.pwrite(guest.memory, random.randbytes(16 * ENTRIES), DESCRIPTORS)
            os.pwrite(guest.memory, random.randbytes(4096), INPUT)
            guest.offer(random.choice((0, 1, 2, 3, 100)))

    random.seed(19)
    pipe = os.pipe()
    unasked = [os.memfd_create("unasked"), os.eventfd(0), os.memfd_create("unasked"), os.eventfd(0)]
    for act in (
        chain((INPUT, 40, NEXT, 0)),  # a loop
        chain((INPUT, 40, NEXT, 999)),
        chain((1 << 40, 40, NEXT, 1), (OUTPUT, 4096, WRITE, 0)),
        chain((INPUT, 40, NEXT, 1), (MEMORY - 8, 4096, WRITE, 0)),
        chain((INPUT, 40, NEXT, 1), (OUTPUT, 3, WRITE, 0)),
        chain((INPUT, 7, NEXT, 1), (OUTPUT, 4096, WRITE, 0)),
        chain((INPUT, 0xFFFFFFFF, 0, 0)),
        chain((OUTPUT, 16, WRITE | NEXT, 1), (INPUT, 40, 0, 0)),
        chain((TABLE, 17, INDIRECT, 0)),
        chain((TABLE, 0xFFFFFFF0, INDIRECT, 0)),
        chain((DESCRIPTORS, 16, INDIRECT, 0)),  # a table in itself
        chain((INPUT, 40, 0, 0), count=5000),
        noise,
        message(99, bytes(8)),
        message(8, b"\1"),
        message(8, struct.pack("<II", 1000, 4)),
        message(1, flags=3),
        message(1, fds=unasked),  # descriptors that nobody asked for
        message(2, struct.pack("<Q", 0), unasked),
        message(12, struct.pack("<Q", 0), unasked),
        message(5, struct.pack("<II4Q", 1, 0, 0, MEMORY, USER, 0), unasked),
        message(5, struct.pack("<II", 1, 0), unasked, size=40),  # and a part of a message
        message(5, size=0xFFFFFFFF),
        message(5, struct.pack("<II", 8, 0)),
        message(5, struct.pack("<II4Q", 1, 0, 0, MEMORY, USER, 0)),
        message(5, struct.pack("<II4Q", 1, 0, 0, MEMORY, USER, 0), [pipe[0]]),
        message(12, struct.pack("<Q", 0), [pipe[0]]),
        message(12, struct.pack("<Q", 0), [pipe[0], pipe[1], pipe[0]]),
        lambda guest: guest.socket.send(os.urandom(4096)),
        lambda guest: guest.socket.send(b"\1"),
    ):
        guest = Guest(path)
        try:
            act(guest)
            guest.send(18, struct.pack("<II", 1, 1))  # looks into the queue, if it has not yet
            guest.send(17)
            guest.receive()
        except (ConnectionError, BrokenPipeError):
            pass  # it was refused
        guest.end()
    print("done")


{"well": well, "look": look, "badly": badly}[sys.argv[2]](sys.argv[1], *sys.argv[3:])
