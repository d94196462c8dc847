"""Calls accounts of a running mesh: python examples/quickstart.py"""

import asyncio

from account import Account

import mesh


async def main() -> None:
    """Deposit, read, and see an error."""
    async with await mesh.connect("127.0.0.1:7400") as client:
        print("balance:", await client.call(Account.deposit, "alice", 5))
        print("balance:", await client.call(Account.read, "alice"))
        try:
            await client.call(Account.withdraw, "alice", 1_000_000)
        except mesh.EntityError as error:
            print(f"refused: {error.type}: {error}")


asyncio.run(main())
