"""A script that moves the addresses of its process's environment with prctl(2).

prctl(2): PR_SET_MM with PR_SET_MM_MAP, which needs no privilege. It needs `ctypes`, `libc` and
`SIZE`, the bytes of the new environment, whose first variable is BIG. The others have no value, and
none is longer than a page.
"""

MOVE = """
libc.mmap.restype = libc.sbrk.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
place = libc.mmap(None, SIZE, 3, 0x22, -1, 0)
ctypes.memset(place, ord("x"), SIZE)
for end in range(4095, SIZE, 4096):
    ctypes.memset(place + end, 0, 1)
ctypes.memmove(place, b"BIG=", 4)
fields = [0, 0, 0, *open("/proc/self/stat").read().rpartition(")")[2].split()]
code, data, arguments = fields[26:28], fields[45:47], fields[48:50]
addresses = [*code, *data, fields[47], libc.sbrk(0), fields[28], *arguments, place, place + SIZE]
words = (ctypes.c_uint64 * 13)(*map(int, addresses), 0, 0xFFFFFFFF << 32)
if libc.prctl(35, 14, ctypes.addressof(words), ctypes.sizeof(words), 0):
    raise OSError(ctypes.get_errno(), "prctl")
"""
