"""A mesh for a minute, and accounts in it: python examples/quickstart.py"""

from account import Account

import mesh

with mesh.local(Account, handlers=3, progress=print) as m, m.client() as client:
    print("balance:", client.call(Account.deposit, "alice", 5))
    try:
        client.call(Account.withdraw, "alice", 1_000_000)
    except mesh.EntityError as error:
        print(f"refused: {error.type}: {error}")

    print("killing h-0, process", m.kill("h-0"))
    alice = client.entity(Account, "alice")
    print("balance:", alice.deposit(5))
