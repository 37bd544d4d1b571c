"""When a ratio is given, when it is refused, and who is said to be ahead."""
import math
import unittest

from harness.case import Figure
from harness.stats import EVEN_WITHIN, NOISY, PAIRS_MIN, compare, compare_counts, quartiles, spread, summarise

FIVE = [100.0] * 5


class Quartiles(unittest.TestCase):
    def test_they_are_those_of_r_type_7(self):
        self.assertEqual(quartiles([1, 2, 3, 4, 5]), (2, 4))
        self.assertEqual(quartiles([1, 2, 3, 4]), (1.75, 3.25))
        # R: quantile(c(6, 7, 15, 36, 39, 40, 41, 42, 43, 47, 49), c(.25, .75))
        self.assertEqual(quartiles([49, 6, 47, 7, 43, 15, 42, 36, 41, 39, 40]), (25.5, 42.5))

    def test_of_one_value_is_that_value(self):
        self.assertEqual(quartiles([3.0]), (3.0, 3.0))


class Spread(unittest.TestCase):
    def test_is_the_middle_half_over_the_median(self):
        self.assertAlmostEqual(spread([90, 95, 100, 105, 110]), 0.10)

    def test_one_value_has_none(self):
        self.assertEqual(spread([7.0]), 0)

    def test_around_zero_is_infinite(self):
        self.assertEqual(spread([-1, 0, 1]), math.inf)


class Summaries(unittest.TestCase):
    def test_missing_samples_are_left_out(self):
        found = summarise([3.0, None, 1.0, 2.0])
        self.assertEqual((found.median, found.least, found.most, found.count), (2.0, 1.0, 3.0, 3))

    def test_there_is_none_without_a_value(self):
        self.assertIsNone(summarise([None, None]))
        self.assertIsNone(summarise([]))


class Ratios(unittest.TestCase):
    def test_are_taken_within_a_round(self):
        # Both double from round to round: as medians apart they would be noise, as pairs they are always 2.
        found = compare([20, 40, 80], [10, 20, 40], "higher")
        self.assertEqual((found.ratio, found.spread, found.pairs, found.verdict), (2.0, 0.0, 3, "ahead"))

    def test_a_round_without_one_of_both_is_no_pair(self):
        found = compare([10, None, 10, 10, 10], [5, 5, None, 5, 5], "higher")
        self.assertEqual((found.ratio, found.pairs), (2.0, 3))

    def test_too_few_pairs_are_refused(self):
        found = compare([10] * (PAIRS_MIN - 1), [5] * (PAIRS_MIN - 1), "higher")
        self.assertEqual((found.ratio, found.verdict, found.why), (None, None, "2 pairs"))
        self.assertEqual(compare([1.0], [1.0], "higher").why, "1 pair")

    def test_a_noisy_machine_is_refused_with_its_spread(self):
        found = compare([100, 200, 300, 400, 500], FIVE, "higher")
        self.assertEqual((found.ratio, found.verdict), (None, None))
        self.assertAlmostEqual(found.spread, 2 / 3)
        self.assertEqual(found.why, "noise 67%")

    def test_a_spread_at_the_limit_is_not_noise(self):
        half = 100 * NOISY / 2
        self.assertIsNotNone(compare([100 - half, 100 - half, 100, 100 + half, 100 + half], FIVE, "higher").ratio)
        self.assertIsNone(compare([99 - half, 99 - half, 100, 101 + half, 101 + half], FIVE, "higher").ratio)

    def test_nothing_is_divided_by_zero(self):
        found = compare([1, 1, 1], [1, 0, 1], "lower")
        self.assertEqual((found.ratio, found.verdict, found.why), (None, None, "nothing or less in a round"))

    def test_what_shrank_has_no_ratio(self):
        found = compare([-1, 1, 2], [20, 21, 22], "lower")
        self.assertEqual((found.ratio, found.verdict), (None, "ahead"))
        self.assertIsNone(compare([-1, 1, 2], [-2, -1, 2], "lower").verdict)

    def test_noise_hides_no_loss(self):
        noisy = compare([10, 39, 12, 30, 10], [100, 41, 50, 45, 200], "higher")
        self.assertEqual((noisy.ratio, noisy.verdict), (None, "behind"))
        self.assertEqual(compare([10, 39, 12, 30, 10], [100, 41, 50, 45, 200], "lower").verdict, "ahead")
        self.assertIsNone(compare([10, 39, 12, 30, 10], [100, 41, 50, 45, 200], None).verdict)

    def test_in_noise_one_sample_on_the_wrong_side_or_close_is_enough_to_say_nothing(self):
        self.assertIsNone(compare([10, 42, 12, 30, 10], [100, 43, 50, 41, 200], "higher").verdict)
        self.assertIsNone(compare([10, 39.9, 12, 30, 10], [100, 41, 50, 45, 200], "higher").verdict)

    def test_nothing_on_both_sides_is_even(self):
        found = compare([0, 0, 0], [0, 0, 0], "lower")
        self.assertEqual((found.ratio, found.difference, found.verdict), (None, 0, "even"))
        self.assertIsNone(compare([0, 0, 0], [0, 0, 0], None).verdict)


class Verdicts(unittest.TestCase):
    def test_depend_on_which_way_is_good(self):
        self.assertEqual(compare([120] * 5, FIVE, "higher").verdict, "ahead")
        self.assertEqual(compare([120] * 5, FIVE, "lower").verdict, "behind")
        self.assertEqual(compare([80] * 5, FIVE, "higher").verdict, "behind")
        self.assertEqual(compare([80] * 5, FIVE, "lower").verdict, "ahead")

    def test_a_figure_that_is_not_judged_has_a_ratio_only(self):
        found = compare([120] * 5, FIVE, None)
        self.assertEqual((found.ratio, found.verdict), (1.2, None))

    def test_a_small_difference_is_none_however_steady(self):
        self.assertEqual(compare([100 + 99 * EVEN_WITHIN] * 5, FIVE, "higher").verdict, "even")
        self.assertEqual(compare([100 + 101 * EVEN_WITHIN] * 5, FIVE, "higher").verdict, "ahead")

    def test_one_round_of_five_may_disagree(self):
        self.assertEqual(compare([110, 110, 95, 110, 110], FIVE, "higher").verdict, "ahead")
        self.assertEqual(compare([110, 95, 95, 110, 110], FIVE, "higher").verdict, "even")

    def test_no_round_of_three_may_disagree(self):
        self.assertEqual(compare([110, 98, 110], FIVE[:3], "higher").verdict, "even")


class Counts(unittest.TestCase):
    def test_errors_are_one(self):
        self.assertTrue(Figure("errors", "errors", "lower").count)
        self.assertTrue(Figure("refused", "connections", "lower", count=True).count)
        self.assertFalse(Figure("rate", "requests/s", "higher").count)

    def test_no_errors_beside_twelve_is_ahead(self):
        found = compare_counts([0, 0, 0], [12, 15, 9], "lower")
        self.assertEqual((found.verdict, found.difference, found.ratio, found.pairs), ("ahead", -12, None, 3))

    def test_twelve_beside_none_is_behind(self):
        found = compare_counts([12, 15, 9], [0, 0, 0], "lower")
        self.assertEqual((found.verdict, found.difference), ("behind", 12))

    def test_none_on_both_sides_is_even(self):
        self.assertEqual(compare_counts([0, 0, 0], [0, 0, 0], "lower").verdict, "even")

    def test_a_round_that_was_equal_speaks_for_nobody(self):
        self.assertEqual(compare_counts([0, 0, 0], [12, 0, 12], "lower").verdict, "ahead")

    def test_rounds_that_disagree_make_it_even(self):
        self.assertEqual(compare_counts([0, 9, 0], [12, 0, 12], "lower").verdict, "even")

    def test_a_share_too_small_is_even(self):
        self.assertEqual(compare_counts([1000] * 3, [1020] * 3, "lower").verdict, "even")
        self.assertEqual(compare_counts([1000] * 3, [1200] * 3, "lower").verdict, "ahead")

    def test_half_an_error_is_no_difference(self):
        self.assertEqual(compare_counts([0, 0, 1, 1], [0, 0, 0, 0], "lower").verdict, "even")

    def test_too_few_pairs_are_refused(self):
        self.assertEqual(compare_counts([0, 0, None], [12, 12, 12], "lower").why, "2 pairs")

    def test_more_may_be_better(self):
        self.assertEqual(compare_counts([12] * 3, [0] * 3, "higher").verdict, "ahead")


if __name__ == "__main__":
    unittest.main()
