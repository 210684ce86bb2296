import airlock
import graphene
from django.urls import path
from graphene_django.views import GraphQLView
from graphql import GraphQLError

from shop.views import place_order


class Checkout(graphene.Mutation):
    class Arguments:
        email = graphene.String(required=True)
        card = graphene.String(required=True)

    order = graphene.Int()

    @airlock.scoped
    def mutate(self, info, email, card):
        order = place_order(email)
        if card == "declined":
            raise GraphQLError("Your card was declined.")
        return Checkout(order=order.pk)


class Mutation(graphene.ObjectType):
    checkout = Checkout.Field()


class Query(graphene.ObjectType):
    hello = graphene.String()


schema = graphene.Schema(query=Query, mutation=Mutation)

urlpatterns = [path("graphql/", GraphQLView.as_view(schema=schema))]
