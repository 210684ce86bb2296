import airlock
import strawberry
from django.urls import path
from graphql import GraphQLError
from strawberry.django.views import GraphQLView

from shop.views import place_order


@strawberry.type
class Query:
    hello: str = "hello"


@strawberry.type
class Placed:
    order: int

    @strawberry.field
    def parcel(self) -> int:
        raise GraphQLError("It is not packed yet.")


@strawberry.type
class Mutation:
    @strawberry.mutation
    @airlock.scoped  # below @strawberry.mutation
    def checkout(self, email: str, card: str) -> Placed:
        order = place_order(email)
        if card == "declined":
            raise GraphQLError("Your card was declined.")
        return Placed(order=order.pk)


schema = strawberry.Schema(query=Query, mutation=Mutation)

urlpatterns = [path("graphql/", GraphQLView.as_view(schema=schema))]
