"""Steps of :mod:`xlvs.reconcile` carried out on a data plane."""

from __future__ import annotations

from collections.abc import Iterable
from errno import EEXIST, ENOENT, ESRCH

from xlvs import reconcile
from xlvs.dataplane.port import DataPlane, Transaction
from xlvs.errors import IpvsError


def carry_out(plane: DataPlane, steps: Iterable[reconcile.Step]) -> None:
    """Make all changes together, as far as the engine can; nothing stays of some where one is refused.

    What somebody else has done meanwhile is no trouble: what is to be added may be there, what is
    to be deleted may be gone.
    """
    steps = list(steps)
    if not steps:
        return
    with plane.transaction() as transaction:
        for step in steps:
            _one(transaction, step)


def _one(transaction: Transaction, step: reconcile.Step) -> None:
    match step:
        case reconcile.AddService(service):
            try:
                transaction.add_service(service)
            except IpvsError as error:
                _only(error, EEXIST)
                transaction.edit_service(service)
        case reconcile.EditService(service):
            transaction.edit_service(service)
        case reconcile.DeleteService(key):
            try:
                transaction.delete_service(key)
            except IpvsError as error:
                _only(error, ESRCH)
        case reconcile.AddDestination(key, destination):
            try:
                transaction.add_destination(key, destination)
            except IpvsError as error:
                _only(error, EEXIST)
                transaction.edit_destination(key, destination)
        case reconcile.EditDestination(key, destination):
            transaction.edit_destination(key, destination)
        case reconcile.DeleteDestination(key, name):
            try:
                transaction.delete_destination(key, name)
            except IpvsError as error:
                _only(error, ENOENT, ESRCH)
        case reconcile.AddLocalAddresses(key, addresses):
            transaction.add_local_addresses(key, addresses)
        case reconcile.DeleteLocalAddresses(key, addresses):
            transaction.delete_local_addresses(key, addresses)


def _only(error: IpvsError, *expected: int) -> None:
    if error.errno not in expected:
        raise error
