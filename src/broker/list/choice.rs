//! Which of many items are on a page.

use std::cmp::Ordering;

use super::{Order, OrderBy, PageQuery};
use crate::model::Timestamp;

/// An item with what it is ordered by.
pub(crate) struct Candidate<T, N> {
    pub(crate) item: T,
    pub(crate) name: N,
    pub(crate) time: Option<Timestamp>,
}

/// The first items of a list after a place, chosen from items in any order.
pub(crate) struct Choice<T, N> {
    order: Order,
    /// Time and name of the last item before.
    after: Option<(Option<Timestamp>, N)>,
    size: usize,
    found: Vec<Candidate<T, N>>,
}

impl<T, N: Ord> Choice<T, N> {
    pub(crate) fn new(order: Order, after: Option<(Option<Timestamp>, N)>, size: usize) -> Self {
        Self { order, after, size, found: Vec::new() }
    }

    /// A choice for a page. `name` makes the name after which the page begins.
    pub(crate) fn of_page<'p, P>(page: &'p PageQuery<P>, name: impl FnOnce(&'p P) -> N) -> Self {
        let after = page.after.as_ref().map(|(position, _)| (position.time, name(&position.name)));
        Self::new(page.order, after, page.size)
    }

    /// Takes an item in.
    pub(crate) fn take(&mut self, one: Candidate<T, N>) {
        let is_after = |(time, name): &(Option<Timestamp>, N)| {
            compare(self.order, (one.time, &one.name), (*time, name)).is_gt()
        };
        if self.after.as_ref().is_none_or(is_after) {
            self.found.push(one);
        }
        // What cannot be on the page goes, many at a time.
        if self.found.len() > 4 * self.size + 4096 {
            self.keep_first();
        }
    }

    /// How many items were found that may be on the page, or one more than the page has.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() > self.size
    }

    /// The items of the page in order, and whether there are more.
    pub(crate) fn finish(mut self) -> (Vec<Candidate<T, N>>, bool) {
        self.keep_first();
        let order = self.order;
        self.found.sort_unstable_by(|one, other| order_of(order, one, other));
        let has_more = self.is_full();
        self.found.truncate(self.size);
        (self.found, has_more)
    }

    /// Keeps the items of the page and one more.
    fn keep_first(&mut self) {
        if self.found.len() > self.size + 1 {
            let order = self.order;
            self.found.select_nth_unstable_by(self.size, |one, other| order_of(order, one, other));
            self.found.truncate(self.size + 1);
        }
    }
}

fn order_of<T, N: Ord>(order: Order, one: &Candidate<T, N>, other: &Candidate<T, N>) -> Ordering {
    compare(order, (one.time, &one.name), (other.time, &other.name))
}

fn compare<N: Ord>(
    Order { by, is_descending }: Order,
    (time, name): (Option<Timestamp>, &N),
    (other_time, other_name): (Option<Timestamp>, &N),
) -> Ordering {
    let directed = |ordering: Ordering| if is_descending { ordering.reverse() } else { ordering };
    let names = name.cmp(other_name);
    if by == OrderBy::Name {
        return directed(names);
    }
    let times = match (time, other_time) {
        (Some(one), Some(other)) => directed(one.cmp(&other)),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    };
    times.then(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names on page after page of three items.
    fn pages(by: OrderBy, is_descending: bool, items: &[(u32, Option<i64>)]) -> Vec<Vec<u32>> {
        let (order, mut after, mut pages) = (Order { by, is_descending }, None, Vec::new());
        loop {
            let mut choice = Choice::new(order, after, 3);
            for (name, time) in items {
                let time = time.map(Timestamp::from_millis);
                choice.take(Candidate { item: (), name: *name, time });
            }
            let (found, has_more) = choice.finish();
            after = found.last().map(|last| (last.time, last.name));
            pages.push(found.iter().map(|one| one.name).collect());
            if !has_more {
                return pages;
            }
        }
    }

    #[test]
    fn pages_follow_each_other_in_every_order() {
        let items = [(4, None), (1, Some(9)), (7, Some(2)), (3, Some(2)), (2, None), (5, Some(5))];
        for (by, is_descending, expected) in [
            (OrderBy::Name, false, [[1, 2, 3], [4, 5, 7]]),
            (OrderBy::Name, true, [[7, 5, 4], [3, 2, 1]]),
            (OrderBy::UpdateTime, false, [[3, 7, 5], [1, 2, 4]]),
            (OrderBy::UpdateTime, true, [[1, 5, 3], [7, 2, 4]]),
        ] {
            assert_eq!(pages(by, is_descending, &items), expected, "{by:?} {is_descending}");
        }
        let many: Vec<_> = (0..20_000).rev().map(|name| (name, Some(1))).collect();
        let mut choice =
            Choice::new(Order { by: OrderBy::UpdateTime, is_descending: true }, None, 2);
        for (name, time) in many {
            choice.take(Candidate { item: (), name, time: time.map(Timestamp::from_millis) });
        }
        let names: Vec<_> = choice.finish().0.iter().map(|one| one.name).collect();
        assert_eq!(names, [0, 1]);
    }
}
