"""What the shop does later. Without a queue it is called in place, after the commit."""


def send_confirmation(order: int, email: str) -> None: ...


def reserve_parcel(order: int, carrier: str) -> None: ...


def send_newsletter(email: str) -> None: ...


def add_points(customer: str, points: int) -> None:
    raise ConnectionError("loyalty.example does not answer")
