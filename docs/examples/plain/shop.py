import airlock

mailbox: list[str] = []  # stands for the mail server
warehouse: list[int] = []  # stands for the warehouse


def send_confirmation(order_id):
    mailbox.append(f"We have received order {order_id}.")


def notify_warehouse(order_id):
    warehouse.append(order_id)


def process(order_id):
    airlock.enqueue(send_confirmation, order_id)
    airlock.enqueue(notify_warehouse, order_id)


def price_list():
    return {"book": 12, "pen": 2}
