"""The quickstart's entity: a bank account for each key."""

import mesh


@mesh.entity
class Account:
    """One account. Its annotated fields are the replicated state of one key."""

    balance: int = 0

    @mesh.command
    def deposit(self, amount: int) -> int:
        """Add to the balance; the new balance."""
        self.balance += amount
        return self.balance

    @mesh.command
    def withdraw(self, amount: int) -> int:
        """Take from the balance; raises if it does not suffice, and then nothing has changed."""
        if amount > self.balance:
            raise ValueError(f"balance {self.balance} does not cover {amount}")
        self.balance -= amount
        return self.balance

    @mesh.query
    def read(self) -> int:
        """The balance."""
        return self.balance
